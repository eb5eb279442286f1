"""What a run says of itself: what it is and needs, its episodes, and the means of its updates."""

import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.training.logger import Logger
from dreamer_bird.training.pace import Pace, clock
from dreamer_bird.training.resources import disk_bytes, replay_bytes
from dreamer_bird.utils.files import Arrays


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


def introduction(
    config: Config, logdir: Path, frame_bytes: int, checkpoint_bytes: int
) -> Iterator[str]:
    """Yield lines on what a run is and on the memory and disk that it takes at most.

    Warns where that much disk is not free.
    """
    yield f"{config.variant} on {config.task}, seed {config.seed}, {config.precision}"
    yield f"logdir {logdir}"
    full = replay_bytes(config, frame_bytes)
    steps = min(config.steps, config.replay.capacity or config.steps)
    yield f"replay of {steps:,} environment steps, {full / 1e9:.2f} GB of memory when full"
    most = disk_bytes(config, frame_bytes, checkpoint_bytes)
    free = shutil.disk_usage(logdir).free
    yield f"disk: at most {most / 1e9:.2f} GB besides logs and videos; {free / 1e9:.1f} GB are free"
    if free < most:
        warnings.warn(f"{logdir}: the disk may be full before the run ends", stacklevel=2)


def means(history: Arrays) -> dict[str, float]:
    """Return the mean of each metric over the updates in which it was finite, nan without any."""
    finite = {key: column[np.isfinite(column)] for key, column in history.items()}
    return {key: float(values.mean()) if values.size else np.nan for key, values in finite.items()}
