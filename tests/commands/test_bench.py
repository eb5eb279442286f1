"""`run.py bench` through the command line."""

import json
import subprocess
from pathlib import Path

import pytest

from dreamer_bird.commands import bench as measures
from dreamer_bird.config import load
from dreamer_bird.errors import RunError


def test_everything_as_json(run_command, tmp_path):
    # Of episodes that come two at a time, the blocks of updates do so too.
    flags = ["--configs", "debug", "--json", "--steps", 2, "--precision", "float32", "--envs", 2]
    result = run_command("bench", *flags, "--env.time_limit", 50)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures.pop("precision") == "float32"
    assert figures.pop("onednn") is True
    assert figures.keys() == {
        *("step_s_median", "step_s_min", "first_step_s", "flops_per_step", "matmul_gflops"),
        *("flops_share", "env_steps_per_s", "render_ms", "act_ms", "replay_ms", "peak_rss_mb"),
        *("share_train", "share_render", "share_other", "policy_ms"),
    }
    assert all(value > 0 for value in figures.values())
    assert figures["step_s_min"] <= figures["step_s_median"] < figures["first_step_s"]
    shares = [figures[f"share_{part}"] for part in ("train", "render", "other")]
    assert sum(shares) == pytest.approx(1)
    # 0.26 GFLOP in that time, as a share of what a matrix product reaches.
    reached = figures["flops_per_step"] / figures["step_s_median"] / 1e9
    assert figures["flops_share"] == pytest.approx(reached / figures["matmul_gflops"])
    assert list(tmp_path.iterdir()) == []


def test_the_speed_of_a_product(monkeypatch):
    """Two products of n^3 multiplications and additions each, in half a second."""
    monkeypatch.setattr(measures.timeit, "repeat", lambda *_, **__: [0.7, 0.5])
    monkeypatch.setattr(measures, "PRODUCTS", {"CPU:0": 100, "GPU:0": 100})
    assert measures._matmul_gflops("float32") == pytest.approx(2 * 2e6 / 0.5 / 1e9)


def test_a_part_as_a_table(run_command):
    result = run_command("bench", "--configs", "debug", "--part", "env")
    assert result.returncode == 0, result.stderr
    assert "render_ms" in result.stdout and "step_s_median" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("settings", "limit", "steps"),
    [
        ({"task": "dmc_cup_catch"}, 1000, 6 * 1000 + 10 * 1000),
        ({"env.time_limit": 90_000, "train.every": 1000}, 1000, 6 * 1000 + 10 * 1000),
        ({"env.time_limit": 200, "train.every": 1000}, 200, 6 * 200 + 10 * 1000),
        # An episode must hold a sequence of 50 agent steps.
        ({"train.every": 10, "env.action_repeat": 4}, 200, 6 * 200 + 2 * 200),
        # 16 episodes at once, and all blocks due at one step, which twice 16 leave behind.
        ({"env.time_limit": 500, "envs": 16}, 500, 6 * 500 + 2 * 16 * 500),
    ],
)
def test_a_run_is_timed_by_its_blocks_however_long_episodes_may_be(
    monkeypatch, settings, limit, steps
):
    flags = {}
    # Two blocks that came due after one episode: no step lies between them.
    logged = [(1000, 5), (2000, 7), (2000, 9), (3000, 4), (3000, 2), (5000, 4)]
    lines = [
        {
            **{"step": step, "seconds/train": s, "seconds/render": s, "seconds/act": s},
            **{"seconds/wait": 0.5 * s, "seconds/evaluate": 0.5 * s},
            **{"seconds_beside/act": s, "seconds_beside/render": 3 * s},
        }
        for step, s in logged
    ]
    monkeypatch.setattr(measures, "_run", lambda given: flags.update(given) or lines)
    figures = measures.measure_run(load({"task": "gym_CartPole-v1", "obs": "state"} | settings))
    assert (flags["env.time_limit"], flags["steps"]) == (limit, steps)
    assert figures["env_steps_per_s"] == pytest.approx(3000 / 40)
    repeat = flags["env.action_repeat"]
    assert figures["act_ms"] == pytest.approx(1000 * 20 / (3000 / repeat))
    assert figures["share_train"] == pytest.approx(0.25)
    assert figures["share_render"] == figures["share_other"] == pytest.approx(0.375)


def test_further_blocks_at_a_step_are_blocks_too_although_they_have_no_fps(monkeypatch):
    block = {"step": 2, "model_loss": 1.0, "seconds/train": 3.0}
    logged = [{"step": 2, "train/return": 0}, block | {"fps": 4.0}, block, {"step": 2, "test": 0}]

    def leave_logs(_, *line):
        (folder,) = (word.removeprefix("--logdir=") for word in line if "--logdir=" in word)
        Path(folder).mkdir()
        Path(folder, "metrics.jsonl").write_text("\n".join(map(json.dumps, logged)))
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(measures, "run_python", leave_logs)
    assert measures._run({}) == logged[1:3]


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [
        (-9, "", "ended by SIGKILL; was memory short?"),
        (1, "run.py: warning: x\nRuntimeError: y\n", "RuntimeError: y"),
    ],
)
def test_why_a_run_that_was_to_be_timed_failed(monkeypatch, status, stderr, reason):
    done = subprocess.CompletedProcess([], status, "", stderr)
    monkeypatch.setattr(measures, "run_python", lambda *line: done)
    with pytest.raises(RunError) as caught:
        measures._run({})
    assert str(caught.value) == f"the run that was to be timed failed: {reason}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "stp"], "--part invalid choice: 'stp'"),
        (["--steps", "0"], "--steps 0: must be a whole number of at least 1"),
        (["--steps", "1e5"], "--steps 1e5: must be a whole number of at least 1 and at most 1000"),
        (["--modle.lr", "1"], "unknown flag --modle.lr: did you mean --model.lr?"),
        (["--parts", "env"], "unknown flag --parts: did you mean --part?"),
    ],
)
def test_bad_input_is_one_line(run_command, run_here, flags, message):
    run = run_command if "--part" in flags else run_here
    result = run("bench", "--configs", "debug", *flags)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
