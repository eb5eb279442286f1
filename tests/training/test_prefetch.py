"""What is made ahead in a thread."""

import threading
from contextlib import closing

import pytest

from dreamer_bird.training.prefetch import prefetched


def test_all_come_in_order():
    assert list(prefetched(lambda number: number**2, range(3, 8))) == [9, 16, 25, 36, 49]
    assert list(prefetched(lambda number: number, [])) == []


def test_the_next_is_made_while_one_is_used():
    made = {number: threading.Event() for number in range(3)}

    def make(number):
        made[number].set()
        return number, threading.current_thread()

    with closing(prefetched(make, range(3))) as numbers:
        number, thread = next(numbers)
        assert number == 0 and thread is not threading.current_thread()
        assert made[1].wait(10)
        assert not made[2].is_set()  # one ahead, not all


def test_an_error_comes_where_its_value_would_have():
    def make(number):
        return 1 / (2 - number)

    numbers = prefetched(make, range(4))
    assert [next(numbers), next(numbers)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(numbers)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with closing(prefetched(lambda number: number, range(100))) as numbers:
        next(numbers)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
