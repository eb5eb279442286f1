"""PlaNet, a run without a policy, through the real command line."""

import json

import numpy as np
import pytest
from command_line import command

import dreamer_bird
from dreamer_bird.cli import main
from dreamer_bird.training import checkpoint

TASK = "dmc_cartpole_balance"


def train(logdir, steps, *flags):
    tiny = ["--env.time_limit", "20", "--train.prefill", "2", "--train.updates", "1"]
    line = ["--configs", "debug", "--variant", "planet", "--task", TASK, "--obs", "state"]
    done = command(*line, *tiny, "--steps", steps, "--logdir", logdir, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of six episodes and, with the same command, three more."""
    logdir = tmp_path_factory.mktemp("planet") / "run"
    train(logdir, 120)
    assert "resumed at step 120" in train(logdir, 180, "--planner.candidates", "30")
    return logdir


def test_it_collects_by_plans_and_trains_the_world_model_alone(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    blocks = [line for line in lines if "model_loss" in line]
    assert [line["step"] for line in blocks] == list(range(40, 181, 20))
    for line in blocks:
        assert not [key for key in line if key.startswith(("actor", "value", "imagined"))]
        assert line["skipped_updates"] == line["nonfinite_actions"] == 0
    tests = [line for line in lines if "model_error_new" in line]
    assert tests and all("followed_return" in line for line in tests)
    assert not any("imagined_return" in line for line in tests)
    arrays, header = checkpoint.load(checkpoint.newest_first(run / "checkpoints")[0])
    assert arrays["model_optimizer/count"] == header["updates"] == 8
    parts = {name.split("/")[0] for name in arrays}
    assert parts == {"state_encoder", "rssm", "state_decoder", "reward", "model_optimizer"}
    actions = [np.load(run / "episodes" / f"{name}.npz")["action"][1:] for name in header["replay"]]
    assert all(np.abs(each).max() <= 1 and len(np.unique(each)) > 2 for each in actions)


def test_its_policy_is_the_plan(run, capsys):
    flags = ["evaluate", "--logdir", str(run), "--episodes", "1", "--json", "--planner"]
    assert main([*flags, "cem"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["returns"] == found["planned"]["returns"] and found["mean"] > 0
    assert main([*flags, "cem-value"]) == 2
    told = "--planner cem-value: planet has no value; choose cem"
    assert capsys.readouterr().err.splitlines()[-1].endswith(told)


def test_it_is_loaded_and_exported_as_any_other(run, tmp_path, capsys):
    policy, obs = dreamer_bird.load(run), np.zeros(5, np.float32)
    first, _ = policy(obs)
    np.testing.assert_array_equal(policy(obs)[0], first)
    assert main(["export", "--logdir", str(run), "--out", str(tmp_path / "model")]) == 0
    assert "actions differ by" in capsys.readouterr().out


def test_it_is_a_method_beside_its_published_return(run, write_log, capsys):
    path = write_log("run", [(1000, 5.0)])
    settings = (run / "config.yaml").read_text().replace(TASK, "dmc_cheetah_run")
    path.with_name("config.yaml").write_text(settings.replace("obs: state", "obs: pixels"))
    assert main(["compare", str(path)]) == 0
    told = capsys.readouterr().out
    assert " PlaNet " in told and "PlaNet 662 (pixels, 1M)" in told
