"""What is told of a run: returns, means of metrics, how fast it is and when it will end."""

import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from statistics import median_low

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.training.logger import Logger
from dreamer_bird.utils.files import Arrays

LEAST, MOST = 5, 1000  # intervals looked at; a pause must stand out among others
PAUSE = 10  # times the usual seconds of a step; an evaluation makes an interval a few times longer


class Reporter:
    """Puts into Dreamer's keys and units what happens in a run."""

    def __init__(self, logger: Logger, config: Config, step: int):
        """Take where it is written, and the environment step at which the run begins or goes on."""
        self._logger, self._train = logger, config.train
        self._last = step, time.monotonic()  # of the last block that had "fps"
        self._pace = Pace(config.steps, config.train.eval_every)

    def episode(
        self, name: str, step: int, episodes: int, episode: Arrays, random: bool = False
    ) -> None:
        """Log an episode, "train" or "test", and how many were played for training until then.

        `random` says that its actions were, as those of the first episodes are.
        """
        total, length = float(episode["reward"].sum()), len(episode["reward"]) - 1
        values = {f"{name}/return": total, f"{name}/length": length, "episodes": episodes}
        self._logger.scalars(step, values)
        if name == "train":
            count = self._random_count(step, episodes) if random else f"episode {episodes}"
            text = f"step {step:,}  {count}  return {total:.1f}"
            self._logger.progress(step, text + self._left(step))
        else:
            self._logger.say(f"evaluation at step {step:,}: return {total:.1f}")

    def block(
        self, step: int, history: Arrays, nonfinite_actions: int, times: Mapping[str, float]
    ) -> None:
        """Log the mean of each metric over a block of updates, and the speed until then."""
        (last_step, last_time), now = self._last, time.monotonic()
        values = means(history)
        values["skipped_updates"] = history["skipped_updates"].sum()
        values["nonfinite_actions"] = nonfinite_actions
        values["expl_amount"] = self._train.expl_amount
        if step > last_step:  # Else it is one more block after the same episodes.
            values["fps"] = (step - last_step) / (now - last_time)
            self._last = step, now
        self._pace.block(step, now)
        self._logger.scalars(step, values | times)

    def _random_count(self, step: int, episodes: int) -> str:
        """Say how many random episodes there are; more than were to be until they are enough."""
        text = f"random episode {episodes}"
        if episodes <= self._train.prefill:
            return f"{text} of {self._train.prefill}"
        steps = self._train.prefill_steps
        return f"{text}, until step {steps:,}" if step < steps else text

    def _left(self, step: int) -> str:
        left = self._pace.left(step, time.monotonic())
        return "" if left is None else f"  {self._pace.speed:.1f} steps/s  {clock(left)} left"


def means(history: Arrays) -> dict[str, float]:
    """Return the mean of each metric over the updates in which it was finite, nan without any."""
    finite = {key: column[np.isfinite(column)] for key, column in history.items()}
    return {key: float(values.mean()) if values.size else np.nan for key, values in finite.items()}


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
