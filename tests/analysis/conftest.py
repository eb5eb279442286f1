"""Synthetic logs with known answers, and the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log

RUN = Path(__file__).parents[2] / "run.py"


@pytest.fixture
def make_log():
    """Build a log in memory from points, `{key: [(step, value), ...]}` or returns alone."""

    def make(points, task="dmc_walker_walk", method="bird", seed=0) -> Log:
        curves = points if isinstance(points, dict) else {"test/return": points}
        for key, pairs in curves.items():
            steps, values = zip(*pairs, strict=True)
            curves = {**curves, key: Curve(np.array(steps), np.array(values, float))}
        return Log(task, method, str(seed), Path(f"{task}/{method}/{seed}"), curves)

    return make


@pytest.fixture
def write_log(tmp_path):
    """Write metrics.jsonl of returns `[(step, value), ...]` or of raw lines; return its path."""

    def write(name, points=(), lines=(), key="test/return") -> Path:
        path = tmp_path / name / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"step": int(step), key: value}) for step, value in points]
        path.write_text("".join(f"{line}\n" for line in [*rows, *lines]))
        return path

    return write


@pytest.fixture
def run_command(tmp_path):
    """Run `run.py` in an empty folder."""

    def run(*arguments) -> subprocess.CompletedProcess:
        command = [sys.executable, str(RUN), *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run
