"""Processes of Python beside this one: how they find this package, and what ended them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer_bird.errors import ConfigError

ROOT = Path(__file__).parents[2]  # what a process must search to import this package


def finding_package(variables: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with which Python also finds this package, from any folder."""
    path = filter(None, [str(ROOT), variables.get("PYTHONPATH")])
    return {**variables, "PYTHONPATH": os.pathsep.join(path)}


def run_python(
    code: str,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run code that may import this package in a process of its own; return what it printed.

    `variables` are those of the environment, by default this process's own. Raises
    `subprocess.TimeoutExpired` after so many seconds.
    """
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=finding_package(os.environ if variables is None else variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def main_file() -> str | None:
    """Return the file of the main module, None for a notebook or what comes from standard input."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file if file and os.path.exists(file) else None


@contextmanager
def spawning() -> Iterator[None]:
    """Let a process start, which imports the main module again where that has a file.

    Raises ConfigError in a script that starts one while it is imported again itself.
    """
    main = vars(sys.modules["__main__"])
    lost = main.pop("__file__", None) if main_file() is None else None  # `<stdin>` is no file
    try:
        yield
    except RuntimeError as error:
        if "bootstrapping" not in str(error):
            raise
        raise ConfigError(
            "environments live in processes that import the script again: "
            "what runs it belongs below `if __name__ == '__main__':`"
        ) from None
    finally:
        if lost:
            main["__file__"] = lost


def signal_behind(status: int | None) -> str:
    """Return the name of the signal that ended a process, "" where none did."""
    if status is None or status >= 0:
        return ""
    with suppress(ValueError):
        return signal.Signals(-status).name
    return f"SIG{-status}"  # one of those without a name


def cause_of_end(status: int) -> str:
    """Word which signal ended a process and what may be behind it, "" where none did."""
    name = signal_behind(status)
    return name and f"ended by {name}" + "; was memory short?" * (name == "SIGKILL")
