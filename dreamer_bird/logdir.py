"""The folder of a run: may it be used, and does it belong to this run?"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dreamer_bird.config import Config, differences
from dreamer_bird.errors import ConfigError, ResumeError


def check_logdir(config: Config) -> None:
    """Refuse a logdir that cannot be written or that holds another run; create nothing.

    Raises ConfigError, or ResumeError that names the differing settings.
    """
    logdir = Path(config.logdir)
    existing = logdir.absolute()
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(f"--logdir {logdir}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"--logdir {logdir}: no permission to write in {existing}")
    saved = _config_file(logdir)
    settings = Config.read(saved) if saved.exists() else None
    if settings is not None and not settings:
        raise ConfigError(f"--logdir {logdir}: {saved} is empty; restore it or choose another")
    lines = differences(settings, config) if settings else []
    if lines:
        raise ResumeError(
            f"--logdir {logdir} holds another run ({'; '.join(lines)}); "
            "choose another logdir or the same settings"
        )


@contextmanager
def claim_logdir(config: Config) -> Iterator[Path]:
    """Create the logdir where needed, keep the settings in it, and hold it against other runs.

    Raises ConfigError where the system does not allow that, or while another run holds it.
    """
    logdir = Path(config.logdir)
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        lock = (logdir / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"--logdir {logdir}: {error.strerror}") from None
    with lock:
        try:
            # The system lets go of it when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--logdir {logdir}: another run is writing in it") from None
        config.save(_config_file(logdir))
        yield logdir


def _config_file(logdir: Path) -> Path:
    return logdir / "config.yaml"
