"""Stops a real run at chosen moments; run as a script, it is that run, and tells its stages.

    python tests/helpers/killing.py STAGES [flags of run.py]

appends the name of each stage that begins as a line to the file STAGES.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dreamer_bird.training import checkpoint
from dreamer_bird.utils.files import Arrays, load_arrays

ROOT = Path(__file__).parents[2]
STAGES = ("prefill", "collect", "update", "evaluate", "save")
TIMED = ("fps", "seconds/", "seconds_beside/")


class Victim:
    """A run in a process of its own, of which it is known what it does."""

    def __init__(self, logdir: Path, *flags: str):
        self._stages = logdir.with_name(f"{logdir.name}.stages")
        self._stages.write_text("")
        line = [sys.executable, __file__, self._stages, "--logdir", logdir, *flags]
        self.process = subprocess.Popen(
            [str(word) for word in line],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, stage: str, occurrence: int = 1, timeout: float = 240) -> bool:
        """Wait until a stage begins for the n-th time; False if the run ended before that."""
        deadline = time.monotonic() + timeout
        while self._stages.read_text().split().count(stage) < occurrence:
            assert time.monotonic() < deadline, "the run hangs"
            if self.process.poll() is not None:
                return False
            time.sleep(0.002)
        return True

    def worker(self, name: str) -> int:
        """Return the process id of a worker; they are started in a fixed order."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = children.read_text().split()
        workers = [
            pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return int(workers[("train 1", "evaluate").index(name)])

    def finish(self) -> str:
        """Wait for the run to end well; return what went to stderr."""
        _, error = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, error
        return error

    def stop(self, number: signal.Signals) -> tuple[int, float, str]:
        """Send a signal; return exit status, seconds until the end, and what went to stderr."""
        children = [self.worker("train 1"), self.worker("evaluate")]
        start = time.monotonic()
        self.process.send_signal(number)
        _, error = self.process.communicate(timeout=60)
        seconds = time.monotonic() - start
        deadline = time.monotonic() + 5
        while any(Path(f"/proc/{pid}").exists() for pid in children):
            assert time.monotonic() < deadline, "a worker was left behind"
            time.sleep(0.01)
        return self.process.returncode, seconds, error


def metrics(logdir: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without the timings."""
    lines = map(json.loads, (logdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith(TIMED)} for line in lines]


def assert_same(logdir: Path, other: Path) -> None:
    """Compare two finished runs bit for bit: metrics, weights, moments and episodes."""
    assert metrics(logdir) == metrics(other)
    (ours, header), (theirs, expected) = map(_newest, (logdir, other))
    assert header["replay"] == expected["replay"]
    _assert_equal(ours, theirs)
    for name in header["replay"]:
        _assert_equal(*(load_arrays(path / f"episodes/{name}.npz") for path in (logdir, other)))


def assert_tidy(logdir: Path) -> None:
    """Nothing is left that the run does not need: no lock, no torn file, no orphaned episode."""
    named = checkpoint.named_episodes(logdir / "checkpoints")
    assert {path.stem for path in (logdir / "episodes").iterdir()} == named
    names = {path.name for path in logdir.iterdir() if not path.name.startswith("events.out.")}
    assert names == {"checkpoints", "config.yaml", "episodes", "metrics.jsonl", "videos"}
    assert not list(logdir.rglob("*.partial"))


def _newest(logdir: Path) -> tuple[Arrays, dict]:
    return checkpoint.load(checkpoint.newest_first(logdir / "checkpoints")[0])


def _assert_equal(arrays: Arrays, others: Arrays) -> None:
    assert arrays.keys() == others.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)


def _tell_stages(stages: str) -> None:
    from dreamer_bird.training.train import Run

    def told(name, stage):
        def run_stage(run):
            prefill = name == "collect" and run.prefilling
            os.write(file, b"prefill\n" if prefill else f"{name}\n".encode())
            stage(run)

        return run_stage

    file = os.open(stages, os.O_WRONLY | os.O_APPEND)
    for name in STAGES[1:]:
        setattr(Run, name, told(name, getattr(Run, name)))


if __name__ == "__main__":
    from dreamer_bird.cli import main

    _tell_stages(sys.argv.pop(1))
    sys.exit(main())
