"""sweep on a real Ray: failures, what is missing, a cluster, and every way to stop."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import chain

import pytest
from sweeping import Sweep, alive, assert_gone, descendants, kill_all, listening, variables

from dreamer_bird.commands.sweep.plan import make_plan
from dreamer_bird.training.checkpoint import newest_first
from dreamer_bird.training.logdir import claim_logdir

pytest.importorskip("ray")

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", f"{'0' * 24}01000000"}
# One that works, and one that fails as long as a file is missing; nothing is rendered.
ROBOTS = """
import os
import gymnasium, numpy as np

class Robot(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {}

class Broken(Robot):
    def reset(self, *, seed=None, options=None):
        if not os.path.exists("mended"):
            raise RuntimeError("an arm is loose")
        return super().reset()
"""
SETTINGS = ["--configs", "debug", "--obs", "state", "--model.discount_head", "false"]
SHORT = [*SETTINGS, "--steps", "400", "--env.time_limit", "100", "--train.updates", "1"]
LONG = [*SETTINGS, "--steps", "1e9", "--train.every", "200"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "robots.py").write_text(ROBOTS)
    return folder


@contextmanager
def sweeping(folder, *flags, **env):
    own = "--variants", "bird", "--logdir", "runs", "--cpus-per-run", "1"
    sweep = Sweep(folder, *own, *flags, **env)
    try:
        yield sweep
    finally:
        kill_all(sweep.family() if sweep.process.poll() is None else [])


def test_a_run_that_fails_is_tried_again_and_reported_and_others_are_done(folder):
    tasks = "--tasks", "robots:Robot,robots:Broken"
    with sweeping(folder, *tasks, "--seeds", "0", "--retries", "1", *SHORT) as sweep:
        sweep.wait_for("runs/*/bird/0.log")
        family = sweep.family()
        assert listening(family) and listening(family) <= LOOPBACK
        env = variables(sweep.run_process("bird/0"))
        assert env["TF_NUM_INTRAOP_THREADS"] == env["LP_NUM_THREADS"] == "1"
        family = sweep.family()
        assert sweep.finish() == 1
    assert_gone(family, 10)
    said = sweep.output.splitlines()
    assert "robots_Robot/bird/0: done" in said
    why = "robots_Broken/bird/0: retrying: 1 of 1, .*an arm is loose"
    assert len([line for line in said if re.match(why, line)]) == 1
    assert any(re.match("robots_Broken/bird/0 failed: .*an arm is loose.*0.log", s) for s in said)
    assert said[-1] == "2 runs: 1 done, 1 failed; 400 of 800 steps"


@pytest.fixture
def cluster():
    """A Ray that listens on loopback alone; the head's process, its address, what it asks for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    env["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # of a short name, for its sockets
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                *(f"--port={port}", "--num-cpus=2", "--include-dashboard=false"),
                *(f"--temp-dir={folder}", f"--object-store-memory={80 * 2**20}"),
            ],
            env=os.environ | env | {"PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            assert any("Ray runtime started" in line for line in head.stdout)
            yield head, f"127.0.0.1:{port}", env
        finally:
            family = descendants(head.pid)
            head.terminate()
            head.communicate(timeout=60)
            kill_all(family)


@pytest.mark.long
def test_started_again_on_a_cluster_it_runs_what_is_missing_and_leaves_the_cluster(folder, cluster):
    head, address, env = cluster
    (folder / "mended").touch()
    before = (folder / "runs/robots_Robot/bird/0.log").read_text()
    flags = ["--tasks", "robots:Robot,robots:Broken", "--seeds", "0", "--address", address, *SHORT]
    with sweeping(folder, *flags, **env) as sweep:
        assert sweep.finish() == 0, sweep.output
    assert head.poll() is None
    assert "robots_Broken/bird/0: done" in sweep.output
    assert "robots_Robot/bird/0: " not in sweep.output
    assert sweep.output.splitlines()[-1] == "2 runs: 2 done; 800 of 800 steps"
    assert (folder / "runs/robots_Robot/bird/0.log").read_text() == before


def interrupted(folder, seeds, stop):
    """Start two runs without end, stop them when both train; return status, output, and what lives.

    The runs end within 20 seconds. Agents of Ray outlive a sweep that is killed.
    """
    with sweeping(folder, "--tasks", "robots:Robot", "--seeds", seeds, *LONG) as sweep:
        # When updates are fast: the first, when TensorFlow prepares them, may outlast the grace.
        late = "checkpoints/*[1-9]000.npz"
        sweep.wait_for(*(f"runs/*/bird/{seed}/{late}" for seed in seeds.split(",")))
        family, begun = sweep.family(), time.monotonic()
        runs = [descendants(sweep.run_process(f"bird/{seed}")) for seed in seeds.split(",")]
        try:
            stop(sweep)
            status = sweep.process.wait(timeout=20)
            assert_gone(chain.from_iterable(runs), begun + 20 - time.monotonic())
            left = alive(family)
        finally:
            kill_all(family)
    return status, sweep.output, left


def assert_saved(folder, seeds):
    """Each run has saved because it was told to stop, is nowhere locked, and can go on."""
    for run in make_plan(["robots:Robot"], ["bird"], seeds, LONG, folder / "runs"):
        assert run.log.read_text().splitlines()[-1].startswith("run.py: stopped by SIGTERM")
        assert newest_first(run.logdir / "checkpoints")
        assert run.state == "waiting"
        with claim_logdir(run.config):
            pass


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)  # where the module of the task is
    return folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "typed", "status", "seeds"),
    [(signal.SIGINT, True, 130, (1, 2)), (signal.SIGTERM, False, 143, (5, 6))],
)
def test_when_it_is_told_to_stop_all_runs_save_and_nothing_is_left(
    inside, number, typed, status, seeds
):
    """An interrupt that is typed reaches all processes of the terminal."""
    names = ",".join(map(str, seeds))
    ended, output, left = interrupted(inside, names, lambda sweep: sweep.signal(number, typed))
    assert (ended, left) == (status, [])
    assert output.count(": stopped\n") == 2 and "2 runs: 2 stopped" in output
    name = signal.Signals(number).name
    assert output.endswith(f"run.py: stopped by {name}; the same command goes on from here\n")
    assert "Traceback" not in output
    assert_saved(inside, seeds)


@pytest.mark.long
def test_when_the_sweep_is_killed_its_runs_save_and_end_by_themselves(inside):
    status, *_ = interrupted(inside, "3,4", lambda sweep: sweep.signal(signal.SIGKILL))
    assert status == -signal.SIGKILL
    assert_saved(inside, (3, 4))
