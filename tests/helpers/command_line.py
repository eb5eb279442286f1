"""run.py, as a user starts it, or in this process, which takes a fraction of the time."""

import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from dreamer_bird import cli

RUN = Path(__file__).parents[2] / "run.py"
IGNORED = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def command(*arguments, cwd=None):
    # As a user's shell would: without the log level that the tests set for themselves.
    env = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    line = [sys.executable, str(RUN), *map(str, arguments)]
    return subprocess.run(line, env=env, cwd=cwd, capture_output=True, text=True, timeout=240)


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
