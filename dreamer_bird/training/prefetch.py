"""What is needed next, made while what was made before is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetched(make: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """Yield `make(number)` for each number, made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        ready: Future[T] | None = None
        for number in numbers:
            coming = thread.submit(make, number)
            if ready:
                yield ready.result()
            ready = coming
        if ready:
            yield ready.result()
