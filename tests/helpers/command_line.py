"""run.py, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[2] / "run.py"


def command(*arguments, cwd=None):
    # As a user's shell would: without the log level that the tests set for themselves.
    env = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    line = [sys.executable, str(RUN), *map(str, arguments)]
    return subprocess.run(line, env=env, cwd=cwd, capture_output=True, text=True, timeout=240)
