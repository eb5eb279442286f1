"""Where the time goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds spent in named parts of a run."""

    def __init__(self):
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time in this context for a part."""
        start = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - start

    def flush(self) -> dict[str, float]:
        """Return seconds by part since the last call, and start again from zero."""
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds
