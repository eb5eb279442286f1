"""The memory and disk that a run needs at most, from its settings."""

from dreamer_bird.config import Config


def replay_bytes(config: Config, frame_bytes: int) -> float:
    """Return the memory of the replay when it is full, or at the end of the run."""
    steps = min(config.steps, config.replay.capacity or config.steps)
    return steps / config.env.action_repeat * frame_bytes


def disk_bytes(config: Config, frame_bytes: int, checkpoint_bytes: int) -> float:
    """Return the disk that episodes and checkpoints take, besides logs and videos."""
    # One checkpoint more than is kept while the newest is written. Those before it may need
    # episodes that have left the replay since; all are compressed, how much depends on the task.
    between = max(config.train.save_every, config.env.time_limit) / config.env.action_repeat
    most = replay_bytes(config, frame_bytes) + (config.train.keep + 1) * checkpoint_bytes
    return most + (config.train.keep * between * frame_bytes if config.replay.capacity else 0)
