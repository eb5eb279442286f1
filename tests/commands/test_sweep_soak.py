"""sweep at length, by `make soak`: runs that are killed end as the same runs by hand."""

import os
import signal
import subprocess
import sys
from itertools import product

import pytest
from command_line import RUN
from killing import assert_same
from sweeping import Sweep, assert_gone

from dreamer_bird.commands.sweep.machines import Share
from dreamer_bird.commands.sweep.node import environment

TASK, VARIANTS, SEEDS = "dmc_cartpole_balance", ("dreamer", "bird"), (0, 1)


pytest.importorskip("ray")
pytestmark = pytest.mark.long


def by_hand(logdir, variant, seed):
    flags = "--configs", "debug", "--task", TASK, "--variant", variant, "--seed", str(seed)
    line = [sys.executable, str(RUN), *flags, "--logdir", str(logdir)]
    env = environment(os.environ, Share(1, 0))
    subprocess.run(line, env=env, check=True, stdout=subprocess.DEVNULL)


def test_a_sweep_of_which_each_run_is_killed_once_ends_as_the_same_runs_by_hand(tmp_path):
    flags = ["--tasks", TASK, "--variants", ",".join(VARIANTS), "--seeds", "0..1"]
    flags += ["--cpus-per-run", "1", "--configs", "debug", "--logdir", "runs"]
    sweep = Sweep(tmp_path, *flags)
    for seed, variant in product(SEEDS, VARIANTS):
        sweep.wait_for(f"runs/{TASK}/{variant}/{seed}/checkpoints/*[12]?00.npz")
        os.kill(sweep.run_process(f"{variant}/{seed}"), signal.SIGKILL)
    family = sweep.family()
    assert sweep.finish() == 0, sweep.output
    assert_gone(family, 20)
    for variant, seed in product(VARIANTS, SEEDS):
        name = f"{TASK}/{variant}/{seed}"
        assert f"{name}: retrying: 1 of 3, ended by SIGKILL" in sweep.output
        by_hand(tmp_path / "hand" / name, variant, seed)
        assert_same(tmp_path / "runs" / name, tmp_path / "hand" / name)
