"""The folder of a run: may it be used, and does it belong to this run?"""

import os
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
    lines = differences(Config.read(saved), config) if saved.exists() else []
    if lines:
        raise ResumeError(
            f"--logdir {logdir} holds another run ({'; '.join(lines)}); "
            "choose another logdir or the same settings"
        )


def claim_logdir(config: Config) -> Path:
    """Create the logdir where needed, keep the settings in it and return it.

    Raises ConfigError where the system does not allow that.
    """
    logdir = Path(config.logdir)
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        config.save(_config_file(logdir))
    except OSError as error:
        raise ConfigError(f"--logdir {logdir}: {error.strerror}") from None
    return logdir


def _config_file(logdir: Path) -> Path:
    return logdir / "config.yaml"
