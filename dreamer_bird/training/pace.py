"""How fast a run is, and when it will end."""

from collections import deque
from itertools import pairwise
from statistics import median_low

LEAST, MOST = 5, 1000  # intervals looked at; a pause must stand out among others
PAUSE = 10  # times the usual seconds of a step; an evaluation makes an interval a few times longer


class Pace:
    """Environment steps a second and the time left, as told by the blocks of updates.

    Nothing is known before the second block: random episodes, before the first, are many times as
    fast. Intervals that are much longer than others hold a pause, and do not count.
    """

    def __init__(self, steps: int, window: int):
        """Take the step at which the run ends, and the steps to look back on, at least."""
        self._steps, self._window = steps, window
        # Steps, and the times at the end of their updates.
        self._marks: deque[tuple[int, float]] = deque(maxlen=MOST + 1)

    def block(self, step: int, now: float) -> None:
        """Take note of the time in seconds at which a block of updates has ended."""
        if self._marks and self._marks[-1][0] == step:
            self._marks.pop()  # Several episodes make several blocks due: the last one counts.
        self._marks.append((step, now))
        while len(self._marks) > LEAST + 1 and self._marks[1][0] <= step - self._window:
            self._marks.popleft()

    @property
    def speed(self) -> float | None:
        """Environment steps a second, None while not known."""
        pairs = pairwise(self._marks)
        intervals = [(last - first, end - start) for (first, start), (last, end) in pairs]
        if not intervals:
            return None
        usual = median_low(seconds / steps for steps, seconds in intervals)
        kept = [each for each in intervals if each[1] <= PAUSE * usual * each[0]]
        return sum(steps for steps, _ in kept) / sum(seconds for _, seconds in kept)

    def left(self, step: int, now: float) -> float | None:
        """Return the seconds until the end at a step and a time, None while not known."""
        if (speed := self.speed) is None:
            return None
        last, then = self._marks[-1]
        # Since the last block an episode was played, whose updates are still to come, or a pause.
        return max((self._steps - last) / speed - (now - then), (self._steps - step) / speed, 0)


def clock(seconds: float) -> str:
    """Word a time, 3:20:00."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
