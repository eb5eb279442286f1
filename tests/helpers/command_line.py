"""Python and run.py, as a user starts them, and commands in this process, which takes less time."""

import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from dreamer_bird import cli

ROOT = Path(__file__).parents[2]
RUN = ROOT / "run.py"
IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def command(*arguments, **options):
    """Run a command without the log level of TensorFlow that the tests set for themselves."""
    return _run([RUN, *arguments], without=["TF_CPP_MIN_LOG_LEVEL"], **options)


def python(*arguments, **options):
    """Run Python such that it finds the package."""
    return _run(arguments, **{"PYTHONPATH": ROOT, **options})


def _run(arguments, cwd=None, text=None, without=(), **variables):
    """Run Python in a folder, on a text, without some environment variables and with others."""
    env = {name: value for name, value in os.environ.items() if name not in without}
    env |= {name: str(value) for name, value in variables.items()}
    line = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        line, env=env, cwd=cwd, input=text, capture_output=True, text=True, timeout=300
    )


def here(*arguments):
    """Run a command in this process, with the warnings that Python shows, not those of pytest."""
    line, out, error = [str(RUN), *map(str, arguments)], StringIO(), StringIO()
    with (
        patch.object(sys, "argv", line),
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        warnings.showwarning = _show
        warnings.simplefilter("default")
        for kind in IGNORED:
            warnings.simplefilter("ignore", kind)
        try:
            status = cli.main(line[1:])
        except SystemExit as end:  # of --help
            status = end.code
    return subprocess.CompletedProcess(line, status, out.getvalue(), error.getvalue())


def _show(message, category, filename, lineno, *_):
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
