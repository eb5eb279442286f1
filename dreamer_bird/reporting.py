"""What a run says of itself: what it is and needs, and the means of its updates."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.needs import disk_bytes, replay_bytes
from dreamer_bird.storage import Arrays


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
