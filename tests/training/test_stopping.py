"""Runs stopped at any moment and started again end as if they had never been stopped."""

import os
import random
import resource
import signal
import time

import pytest
from killing import STAGES, Victim, assert_same, assert_tidy

FLAGS = [
    *("--configs", "debug", "--task", "dmc_pendulum_swingup", "--variant", "bird"),
    # Episodes leave the replay, not each of them is followed by a checkpoint or an evaluation.
    *("--steps", "1400", "--replay.capacity", "600", "--train.save_every", "400"),
    *("--train.eval_every", "600"),
]
LASTS = {"prefill": 0.6, "collect": 0.8, "update": 0.4, "evaluate": 1.0, "save": 0.05}  # seconds
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGKILL: -9}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is never stopped."""
    logdir = tmp_path_factory.mktemp("whole") / "run"
    Victim(logdir, *FLAGS).finish()
    assert_tidy(logdir)
    return logdir


def test_a_run_stopped_at_random_moments_ends_as_one_never_stopped(whole, tmp_path, kills):
    """Stops every stage by every signal, `--kills` times in all, in as many runs as that takes."""
    rng = random.Random(kills)
    plan = [(stage, number) for number in STATUS for stage in STAGES] * (1 + kills // 20)
    plan = rng.sample(plan, kills)
    runs = 0
    while plan:
        runs += 1
        assert runs <= 2 * kills, "runs end by themselves and not by signals"
        logdir = tmp_path / f"run{runs}"
        victim = Victim(logdir, *FLAGS)
        while plan and victim.wait_for(plan[-1][0], rng.randint(1, 2)):
            stage, number = plan.pop()
            time.sleep(rng.uniform(0, LASTS[stage]))
            status, seconds, error = victim.stop(number)
            if status == 0:  # It had come to its end by itself: this stop is still to be made.
                plan.append((stage, number))
                break
            assert status == STATUS[number], error
            assert seconds < 10
            victim = Victim(logdir, *FLAGS)
        victim.finish()
        assert_same(logdir, whole)
        assert_tidy(logdir)
    print(f"{kills} stops in {runs} runs: all ended as the one never stopped")


def test_a_full_disk_and_then_a_killed_worker_lose_nothing(whole, tmp_path):
    logdir = tmp_path / "run"
    victim = Victim(logdir, *FLAGS)
    assert victim.wait_for("save", 2)
    # From now on the system lets no file grow beyond 900 kB: a checkpoint is larger, nothing else.
    resource.prlimit(victim.process.pid, resource.RLIMIT_FSIZE, (900_000, 900_000))
    _, error = victim.process.communicate(timeout=120)
    assert victim.process.returncode == 1
    assert f"cannot write {logdir}/checkpoints/" in error.splitlines()[-1]
    assert "File too large" in error and "Traceback" not in error
    victim = Victim(logdir, *FLAGS)
    assert victim.wait_for("collect")
    os.kill(victim.worker("train 1"), signal.SIGKILL)
    error = victim.finish()
    assert "warning: environment worker 'train 1' (pid " in error
    assert "died: signal SIGKILL; episode " in error
    assert_same(logdir, whole)
    assert_tidy(logdir)
