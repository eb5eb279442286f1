import errno
import os
import shutil
import signal
import socket

import pytest
from command_line import python

from dreamer_bird.config import Config, load
from dreamer_bird.errors import ConfigError, ResumeError, RunError
from dreamer_bird.training.logdir import check_logdir, claim_logdir


def config(logdir, **flags):
    return load({"logdir": str(logdir)} | flags)


def test_it_may_be_new_or_there_and_checking_creates_nothing(tmp_path):
    check_logdir(config(tmp_path))
    check_logdir(config(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    for logdir, blocked in ((file, file), (file / "run", file), (link, link)):
        with pytest.raises(ConfigError, match=f"^--logdir {logdir}: {blocked} is not a folder$"):
            check_logdir(config(logdir))
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ConfigError, match=f"/new/run: no permission to write in {tmp_path}$"):
        check_logdir(config(tmp_path / "new" / "run"))


def test_what_only_the_system_knows_is_told_in_a_line(tmp_path):
    settings = config(tmp_path / ("x" * 300))
    with pytest.raises(ConfigError, match="File name too long"), claim_logdir(settings):
        pass


def test_episodes_without_their_checkpoint_are_refused_and_stay(tmp_path):
    with claim_logdir(config(tmp_path)):
        pass
    (tmp_path / "episodes").mkdir()
    check_logdir(config(tmp_path))
    (tmp_path / "episodes" / "000000-1-501.npz").touch()
    with pytest.raises(ConfigError, match="has episodes but no checkpoint; restore one or choose"):
        check_logdir(config(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "0000001000.npz").touch()
    check_logdir(config(tmp_path))


def test_claiming_keeps_the_settings(tmp_path):
    settings = config(tmp_path / "run", seed=3)
    with claim_logdir(settings) as logdir:
        assert logdir == tmp_path / "run"
    assert Config.read(tmp_path / "run" / "config.yaml") == settings


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        ({"variant": "dreamer"}, "variant: saved bird, now dreamer"),
        ({"task": "dmc_cup_catch"}, "task: saved dmc_cartpole_swingup, now dmc_cup_catch"),
        ({"model.deter": 24}, "(model.deter: saved 300, now 24)"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path, flags, difference):
    with claim_logdir(config(tmp_path)):
        pass
    before = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ResumeError) as caught:
        check_logdir(config(tmp_path, **flags))
    assert difference in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_run_may_go_on_longer_and_in_another_precision(tmp_path):
    with claim_logdir(config(tmp_path)):
        pass
    check_logdir(config(tmp_path, steps=5_000_000, precision="float32"))


def test_two_runs_cannot_share_one(tmp_path):
    with (
        claim_logdir(config(tmp_path)),
        pytest.raises(
            ConfigError, match=f"process {os.getpid()} on host {socket.gethostname()} is"
        ),
        claim_logdir(config(tmp_path)),
    ):
        pass
    assert not (tmp_path / "lock").exists()
    with claim_logdir(config(tmp_path)):  # free again
        pass


def test_a_run_that_began_and_ended_since_the_check_keeps_its_folder(tmp_path):
    second = config(tmp_path, seed=2)
    check_logdir(second)
    with claim_logdir(config(tmp_path, seed=1)):
        pass
    with pytest.raises(ResumeError, match="seed: saved 1, now 2"), claim_logdir(second):
        pass
    assert Config.read(tmp_path / "config.yaml").seed == 1
    assert not (tmp_path / "lock").exists()


def test_what_a_killed_run_left_does_not_stop_the_next(tmp_path):
    code = (
        "import os, signal; from dreamer_bird.config import load;"
        "from dreamer_bird.training.logdir import claim_logdir;"
        f"claim = claim_logdir(load({{'logdir': {str(tmp_path)!r}}})); claim.__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python("-c", code).returncode == -signal.SIGKILL
    assert "process" in (tmp_path / "lock").read_text()
    folders = [tmp_path, *(tmp_path / name for name in ("episodes", "checkpoints", "videos"))]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        (folder / "000001-500.npz.partial").write_bytes(b"PK")
    with claim_logdir(config(tmp_path)):
        assert not [*tmp_path.rglob("*.partial")]
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text()


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"), claim_logdir(config(tmp_path)):
        pass


def test_emptied_settings_are_told(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match="is empty"):
        check_logdir(config(tmp_path))


def test_checkpoints_without_their_settings_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "0000001000.npz").touch()
    with pytest.raises(ConfigError, match=r"has checkpoints but no config\.yaml"):
        check_logdir(config(tmp_path))


def test_a_name_that_the_system_refuses_is_told_in_a_line(tmp_path):
    with pytest.raises(ConfigError, match="File name too long"):
        check_logdir(config(tmp_path / ("x" * 300)))


@pytest.mark.parametrize("logdir", ["gs://bucket/x", "s3://bucket", "file:///tmp/x"])
def test_a_url_is_refused_and_creates_nothing(run_here, tmp_path, logdir):
    done = run_here("--configs", "debug", "--logdir", logdir)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.py: --logdir {logdir}: must be a folder, not a URL")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_folder_that_has_gone_hides_no_error(tmp_path):
    with pytest.raises(RunError, match="no place left"), claim_logdir(config(tmp_path / "run")):
        shutil.rmtree(tmp_path / "run")
        raise RunError("no place left")
