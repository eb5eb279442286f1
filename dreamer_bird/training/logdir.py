"""The folder of a run: may it be used, does it belong to this run, and to this run alone?"""

import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from dreamer_bird.config import Config, differences
from dreamer_bird.errors import ConfigError, ResumeError, RunError
from dreamer_bird.training.checkpoint import newest_first
from dreamer_bird.utils.files import PARTIAL, check_writable


def check_logdir(config: Config) -> None:
    """Refuse a logdir that cannot be written or that holds another run; create nothing.

    Raises ConfigError, or ResumeError that names the differing settings.
    """
    logdir = Path(config.logdir)
    check_writable(f"--logdir {config.logdir}", logdir)
    saved = logdir / "config.yaml"
    try:
        settings = Config.read(saved) if saved.exists() else None
        checkpoints = newest_first(logdir / "checkpoints")
        episodes = any((logdir / "episodes").glob("*.npz"))
    except OSError as error:
        raise ConfigError(f"--logdir {logdir}: {error.strerror}") from None
    if checkpoints and settings is None:
        raise ConfigError(
            f"--logdir {logdir}: has checkpoints but no {saved.name}; restore it or choose another"
        )
    if episodes and not checkpoints:  # a run that began again would remove them
        raise ConfigError(
            f"--logdir {logdir}: has episodes but no checkpoint; restore one or choose another"
        )
    if settings is not None and not settings:
        raise ConfigError(f"--logdir {logdir}: {saved} is empty; restore it or choose another")
    if settings and (lines := differences(settings, config)):
        raise ResumeError(
            f"--logdir {logdir} holds another run ({'; '.join(lines)}); "
            "choose another logdir or the same settings"
        )


@contextmanager
def claim_logdir(config: Config) -> Iterator[Path]:
    """Create the logdir where needed, keep the settings in it, and hold it against other runs.

    Raises ConfigError where the system does not allow that, or where another run holds it, which is
    named. A ConfigError raised inside leaves as RunError: something has been created by then.
    """
    logdir = Path(config.logdir)
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        lock = _lock(logdir / "lock")
    except OSError as error:
        raise ConfigError(f"--logdir {logdir}: {error.strerror}") from None
    with lock, ExitStack() as stack:
        # The folder may be gone, which was told.
        stack.callback(Path(lock.name).unlink, missing_ok=True)
        check_logdir(config)  # again: another run may have begun and ended in it since
        for folder in (logdir, *(logdir / name for name in ("checkpoints", "episodes", "videos"))):
            for rest in folder.glob(f"*{PARTIAL}"):  # of a process that was killed
                rest.unlink()
        config.save(logdir / "config.yaml")
        try:
            yield logdir
        except ConfigError as error:
            raise RunError(str(error)) from error


def _lock(path: Path) -> TextIO:
    """Open and lock a file, which names this process; whoever left it there is long gone."""
    while True:
        file = path.open("a+")
        try:
            # The system lets go of it when the process ends, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another run"
            raise ConfigError(f"--logdir {path.parent}: {holder} is writing in it") from None
        except OSError as error:
            reason = f"{path} cannot be locked ({error.strerror}): see that no other run uses it"
            warnings.warn(reason, stacklevel=3)
        # The run that held it may have removed it in between: then another could lock a new one.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break
        file.close()
    file.truncate(0)
    file.write(f"process {os.getpid()} on host {socket.gethostname()}\n")
    file.flush()
    return file
