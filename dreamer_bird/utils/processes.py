"""Processes of Python beside this one: how they find this package, and what ended them."""

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dreamer_bird.errors import ConfigError

ROOT = Path(__file__).parents[2]  # what a process must search to import this package


def for_child(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process that finds this package and trains alone."""
    path = filter(None, [str(ROOT), variables.get("PYTHONPATH")])
    kept = {name: value for name, value in variables.items() if name != "TF_CONFIG"}
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


def bound(code: str) -> str:
    """Return code for a child of this process that ends with it."""
    return f"from {__name__} import die_with; die_with({os.getpid()})\n{code}"


def die_with(parent: int) -> None:
    """Have the system end this process with its parent, even while an operation hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # It was gone before.
        os._exit(1)


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
        [sys.executable, "-c", bound(code), *arguments],
        env=for_child(os.environ if variables is None else variables),
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


def failure(done: subprocess.CompletedProcess[str]) -> str:
    """Word in a line why a process failed: by a signal, or by what it wrote last."""
    return cause_of_end(done.returncode) or error_line(done.stderr)


def error_line(text: str) -> str:
    """Return the last line that names an exception, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (named or lines or ["it says nothing"])[-1]
