"""`run.py doctor`: what it gathers, and the whole through the command line."""

import fcntl
import signal

import pytest
from command_line import ROOT, command

from dreamer_bird.commands.doctor import examine as doctor
from dreamer_bird.commands.doctor.trials import Probe
from dreamer_bird.config import load


def test_the_pins_are_those_of_this_checkout_and_ranges_come_from_metadata(monkeypatch, tmp_path):
    lines, remedy = doctor._requirements()
    assert "numpy==2.2.6" in lines and remedy.endswith("requirements.txt")
    monkeypatch.setattr(doctor, "CONFIG_FILE", tmp_path / "configs.yaml")
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: [f"{name}-needs>=1"])
    monkeypatch.setattr(doctor, "_version", lambda name: "1")
    assert doctor._requirements() == (["dreamer-bird-needs>=1"], "")
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert doctor._requirements()[0] == []


def test_a_driver_that_fails_is_fatal_unless_it_is_hidden(monkeypatch, tmp_path, capsys):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["--part", "gpu"]) == 1
    assert capsys.readouterr().out.startswith("FAIL  gpu         NVIDIA-SMI has failed: mend")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert doctor.main(["--part", "gpu"]) == 0


def examined_logdir(path):
    config = load({"logdir": str(path)}, ["debug"])
    return doctor._logdir(doctor.Case(config, []))


def test_a_logdir_that_cannot_be_written(tmp_path, monkeypatch):
    assert examined_logdir(tmp_path / "new").text.endswith("can be written")
    (tmp_path / "file").write_text("")
    finding = examined_logdir(tmp_path / "file" / "x")
    assert finding.fatal and "is not a folder" in finding.text

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor.os, "fsync", full)
    finding = examined_logdir(tmp_path / "new")
    assert finding.fatal and "No space left on device" in finding.text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_logdir_that_another_run_is_writing_in(tmp_path):
    (tmp_path / "lock").write_text("process 7 on host here\n")
    assert not examined_logdir(tmp_path).fatal  # a run that was killed left it there
    with (tmp_path / "lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        finding = examined_logdir(tmp_path)
    assert finding.fatal and finding.text.startswith("process 7 on host here is writing in")


def test_what_a_resumed_run_has_on_the_disk_is_not_needed_again(tmp_path):
    case = doctor.Case(load({"logdir": str(tmp_path)}), [])
    case.probe = Probe(None, None, "not tried")
    before = doctor._disk(case).text
    (tmp_path / "episodes").mkdir()
    (tmp_path / "episodes/000001-500.npz").write_bytes(bytes(10**8))
    assert before.startswith("0.63 GB needed") and doctor._disk(case).text.startswith("0.53 GB")


def test_without_tensorflow_and_mujoco_it_says_so_and_goes_on(tmp_path):
    for name in ("tensorflow", "mujoco"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name} here')")
    result = command("doctor", cwd=tmp_path, PYTHONPATH=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    lines = {line.split()[1]: line for line in result.stdout.splitlines()}
    assert list(lines) == list(doctor.PARTS)
    assert (
        "FAIL  tensorflow  does not load: ModuleNotFoundError: no tensorflow here: "
        in (lines["tensorflow"])
    )
    assert "-m pip install --no-deps -r " in lines["tensorflow"]
    words = "FAIL  rendering   dmc_cartpole_swingup: ModuleNotFoundError: no mujoco here ("
    assert lines["rendering"].startswith(words)
    assert lines["training"].startswith("FAIL") and lines["disk"].startswith("OK")


def test_tensorflow_that_ends_the_process(tmp_path):
    code = f"import os; os.kill(os.getpid(), {signal.SIGILL.value})"
    (tmp_path / "tensorflow.py").write_text(code)
    result = command("doctor", "--part", "tensorflow", cwd=tmp_path, PYTHONPATH=tmp_path)
    assert result.returncode == 1
    assert result.stdout.startswith("FAIL  tensorflow  does not load: ended by SIGILL: ")


def test_an_opengl_that_is_set_and_does_not_work(tmp_path):
    flags = ["doctor", "--part", "rendering"]
    result = command(*flags, cwd=tmp_path, MUJOCO_GL="osmesa")
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 1
    assert "MUJOCO_GL=osmesa: " in result.stdout and result.stdout.endswith(": unset it\n")
    state = command(*flags, "--obs", "state", cwd=tmp_path, MUJOCO_GL="osmesa")
    assert state.returncode == 0 and state.stdout.endswith(" an agent step, without OpenGL\n")


def test_an_environment_that_ignores_its_seed(tmp_path, run_here):
    code = (ROOT / "examples" / "point.py").read_text()
    assert "super().reset(seed=seed)" in code
    (tmp_path / "point.py").write_text(code)
    (tmp_path / "unseeded.py").write_text(code.replace("reset(seed=seed)", "reset()"))
    flags = ["doctor", "--part", "rendering", "--obs", "state", "--task"]
    assert run_here(*flags, "point:Point").stdout.startswith("OK")
    result = run_here(*flags, "unseeded:Point")
    assert result.returncode == 0 and result.stdout.startswith("NOTE")
    why = "; reset(seed=...) with one seed gave two episodes: no exact resume, and no evaluation"
    assert why in result.stdout


def test_a_machine_on_which_training_works(tmp_path):
    flags = ["--configs", "debug", "--logdir", str(tmp_path / "run"), "--precision", "float32"]
    result = command("doctor", *flags, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(doctor.PARTS)
    assert all(line.startswith(("OK", "NOTE")) for line in lines)
    words = {line.split()[1]: line.split()[2:] for line in lines}
    assert words["precision"][0].rstrip(";") == "float32"
    assert 0 < float(words["rendering"][0]) < 1000
    assert 0.3 < float(words["memory"][0]) < 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--part", "gpus"], "--part invalid choice: 'gpus'"),
        (["--modle.lr", "1"], "unknown flag --modle.lr: did you mean --model.lr?"),
        (["--parts", "gpu"], "unknown flag --parts: did you mean --part?"),
    ],
)
def test_bad_input_is_one_line(run_command, run_here, flags, message):
    run = run_command if "--part" in flags else run_here
    result = run("doctor", *flags)
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
