"""What a run is, and the memory and disk that it needs at most, from its settings."""

import math
import shutil
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dreamer_bird.config import Config
from dreamer_bird.envs.tasks import EPISODE, OBSERVATIONS, may_terminate
from dreamer_bird.utils.tensorflow import uses_onednn


def image_bytes(config: Config) -> int:
    """Return the size of an image; that of a state, a small one, only the environment knows."""
    return 3 * config.env.size**2 * ("image" in OBSERVATIONS[config.obs])


def replay_steps(config: Config) -> int:
    """Return the environment steps in the replay when it is full, or at the end of the run."""
    limit = config.env.time_limit or EPISODE  # the replay holds an episode at least
    capacity = config.replay.capacity
    return min(config.steps, max(capacity, limit) if capacity else config.steps)


def replay_bytes(config: Config, frame_bytes: int) -> float:
    """Return the memory of the replay when it is full, or at the end of the run."""
    return replay_steps(config) / config.env.action_repeat * frame_bytes


def disk_bytes(config: Config, frame_bytes: int, checkpoint_bytes: int) -> float:
    """Return the disk that episodes and checkpoints take, besides logs and videos."""
    # One checkpoint more than is kept while the newest is written. Those before it may need
    # episodes that have left the replay since; all are compressed, how much depends on the task.
    together = config.envs * (config.env.time_limit or EPISODE)
    rounds = math.ceil(config.train.save_every / together)  # one is saved after whole episodes
    between = rounds * together / config.env.action_repeat
    most = replay_bytes(config, frame_bytes) + (config.train.keep + 1) * checkpoint_bytes
    return most + (config.train.keep * between * frame_bytes if config.replay.capacity else 0)


def random_steps(config: Config) -> int:
    """Return the environment steps of random actions before the first update, at least."""
    train, least = config.train, _least_of_an_episode(config)
    return least * max(train.prefill, math.ceil(train.prefill_steps / least))


def _least_of_an_episode(config: Config) -> int:
    limit, repeat = config.env.time_limit or EPISODE, config.env.action_repeat
    return 1 if may_terminate(config.task) else max(limit // repeat, 1) * repeat


def written_bytes(logdir: Path) -> int:
    """Return the disk that a run's episodes and checkpoints take by now."""
    written = 0
    for path in (*logdir.glob("checkpoints/*.npz"), *logdir.glob("episodes/*.npz")):
        with suppress(OSError):  # a run that is going on removes some
            written += path.stat().st_size
    return written


def introduction(
    config: Config, logdir: Path, frame_bytes: int, checkpoint_bytes: int
) -> Iterator[str]:
    """Yield lines on what a run is and on the memory and disk that it takes at most.

    Warns where that much disk is not free.
    """
    onednn = "with" if uses_onednn() else "without"
    yield f"{config.variant} on {config.task}, seed {config.seed}"
    yield f"{config.precision}, {onednn} oneDNN on a CPU"
    random = random_steps(config)
    if config.steps <= random - _least_of_an_episode(config):  # the last one may go beyond
        message = f"nothing will be learned: the first {random:,} steps are random actions"
        warnings.warn(message, stacklevel=2)
    yield f"logdir {logdir}"
    steps, full = replay_steps(config), replay_bytes(config, frame_bytes)
    yield f"replay of {steps:,} environment steps, {full / 1e9:.2f} GB of memory when full"
    most = disk_bytes(config, frame_bytes, checkpoint_bytes)
    free = shutil.disk_usage(logdir).free
    yield f"disk: at most {most / 1e9:.2f} GB besides logs and videos; {free / 1e9:.1f} GB are free"
    if free + written_bytes(logdir) < most:
        warnings.warn(f"{logdir}: the disk may be full before the run ends", stacklevel=2)
