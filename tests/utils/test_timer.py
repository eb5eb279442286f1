from types import SimpleNamespace

from dreamer_bird.utils import timer
from dreamer_bird.utils.timer import Stopwatch


def test_parts_add_up_until_they_are_flushed(monkeypatch):
    ticks = iter([0, 2, 10, 11, 20, 23, 30, 34])
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(timer, "time", clock)
    watch = Stopwatch()
    for part in ("act", "render", "act"):
        with watch(part):
            pass
    assert watch.flush() == {"act": 2 + 3, "render": 1}
    with watch("act"):
        pass
    assert watch.flush() == {"act": 4}
    assert watch.flush() == {}
