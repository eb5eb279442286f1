"""End to end through the real command line, on real pixels."""

import json
import os
import resource
import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest
from command_line import RUN, command

from dreamer_bird.config import Config
from dreamer_bird.training import checkpoint

DREAMER_KEYS = {
    *("step", "model_loss", "reward_loss", "div", "prior_ent", "post_ent"),
    *("actor_loss", "value_loss", "model_grad_norm", "actor_grad_norm", "value_grad_norm"),
    *("action_ent", "expl_amount", "fps"),
}
EPISODE = 200  # environment steps, in the preset debug
PREFILL, UPDATES = 2, 5


def words(logdir, *flags, variant="bird"):
    task = ["--configs", "debug", "--variant", variant, "--task", "dmc_pendulum_swingup"]
    task += ["--seed", "0", "--logdir", str(logdir)]
    return [*task, "--train.eval_every", "600", "--train.save_every", "400", *flags]


def run(*arguments, **options):
    return command(*words(*arguments, **options))


def metrics(logdir):
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=["dreamer", "bird", "soft_bird"])
def finished(request, tmp_path_factory):
    """A run of 1200 environment steps, and the variant it trained; one of them from pixels."""
    logdir = tmp_path_factory.mktemp(request.param) / "run"
    obs = "pixels" if request.param == "bird" else "state"
    flags = ["--steps", "1200", "--obs", obs]
    flags += ["--model.free_nats", "0"]  # so that every weight has a gradient
    result = run(logdir, *flags, variant=request.param)
    assert result.returncode == 0, result.stderr
    return request.param, logdir, result


def test_a_run_leaves_logs_a_checkpoint_its_settings_and_videos(finished):
    variant, logdir, result = finished
    lines, seen = metrics(logdir), "image" if variant == "bird" else "state"
    episodes = [line for line in lines if "train/return" in line]
    assert [line["step"] for line in episodes] == list(range(200, 1201, EPISODE))
    assert [line["episodes"] for line in episodes] == [1, 2, 3, 4, 5, 6]
    assert {line["train/length"] for line in episodes} == {100}
    blocks = [line for line in lines if "model_loss" in line]
    assert [line["step"] for line in blocks] == [400, 600, 800, 1000, 1200]
    for line in blocks:
        assert line.keys() >= {*DREAMER_KEYS, f"{seen}_loss"}
        assert all(value is not None for value in line.values())
        assert line["skipped_updates"] == 0
    assert [line["step"] for line in lines if "test/return" in line] == [400, 600, 1200]
    video = imageio.imread(logdir / "videos" / "evaluation-0000001200.gif", index=None)
    assert video.shape[:3] == (101, 64, 64) and video.std() > 1
    settings = Config.read(logdir / "config.yaml")
    assert settings.variant == variant and settings.precision != "auto"
    assert "finished at step 1,200" in result.stdout and result.stderr == ""


def test_a_run_really_updates(finished):
    _, logdir, _ = finished
    arrays, header = checkpoint.load_latest(logdir / "checkpoints")
    updates = (header["episodes"] - PREFILL + 1) * UPDATES
    assert header["updates"] == updates == 25
    for part in ("model", "actor", "value"):
        assert arrays[f"{part}_optimizer/count"] == updates
    moments = [value for name, value in arrays.items() if "optimizer/first/" in name]
    assert len(moments) > 40 and all(np.abs(moment).max() > 0 for moment in moments)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run of one episode, not yet of updates."""
    logdir = tmp_path_factory.mktemp("started") / "run"
    result = run(logdir, "--steps", "200")
    assert result.returncode == 0, result.stderr
    return logdir


def test_the_same_command_resumes(started):
    resumed = run(started, "--steps", "600")
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step 200" in resumed.stdout
    steps = [line["step"] for line in metrics(started) if "train/return" in line]
    assert steps == [200, 400, 600]


def test_a_run_that_fails_while_it_is_built_leaves_a_terminal_with_its_cursor(tmp_path):
    """The system lets no file grow so long as the first checkpoint."""
    few = 20_000, 20_000
    result = subprocess.run(
        [sys.executable, RUN, *words(tmp_path / "run", "--obs", "state")],
        env=os.environ | {"FORCE_COLOR": "1", "TERM": "xterm"},  # rich sees a terminal
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, few),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1 and "File too large" in result.stderr, result.stderr
    hidden, shown = (result.stdout.count(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert result.stdout and hidden == shown


def test_a_resume_as_another_variant_is_refused_and_changes_nothing(started):
    before = {path: path.stat().st_mtime_ns for path in started.rglob("*")}
    result = run(started, variant="dreamer")
    assert result.returncode == 2
    assert "variant: saved bird, now dreamer" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert before == {path: path.stat().st_mtime_ns for path in started.rglob("*")}


def test_damaged_checkpoints_are_told_in_a_line_each(started):
    for path in (started / "checkpoints").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    logs = (started / "metrics.jsonl").read_text()
    warned, again = run(started, "--steps", "800"), run(started, "--steps", "800")
    assert (warned.returncode, again.returncode) == (1, 2)
    *lines, last = warned.stderr.splitlines()
    assert len(lines) == 2 and last.startswith("run.py: no checkpoint in ")
    told = (
        f"run.py: --logdir {started}: has episodes but no checkpoint; restore one or choose another"
    )
    assert again.stderr.splitlines() == [told]
    assert len([*(started / "episodes").iterdir()]) > 0
    assert (started / "metrics.jsonl").read_text() == logs


def test_updates_that_are_not_finite_stop_the_run_and_leave_the_last_good_checkpoint(tmp_path):
    flags = ["--steps", "1200", "--model.lr", "1e30", "--train.max_skipped", "3"]
    result = run(tmp_path / "run", *flags, "--train.save_every", "200")
    assert result.returncode == 1
    assert "run.py: training diverged: 3 updates in a row" in result.stderr
    assert "not used, image_loss first; " in result.stderr
    assert "Traceback" not in result.stderr
    arrays, header = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert header["step"] == EPISODE
    assert all(np.isfinite(value).all() for value in arrays.values())
    skipped = [
        line["skipped_updates"] for line in metrics(tmp_path / "run") if "model_loss" in line
    ]
    assert skipped == [4]
