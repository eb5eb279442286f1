"""The container's files and the examples of deploy/ against the program that they run."""

import importlib.metadata
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from dreamer_bird.cli import COMMANDS
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.doctor import examine as doctor
from dreamer_bird.commands.gpu_check import command as gpu_check
from dreamer_bird.config import load
from dreamer_bird.envs.rendering import INSTALL_COMMAND

ROOT = Path(__file__).parents[1]


def read(name):
    return (ROOT / name).read_text()


def documents(name):
    return list(YAML(typ="safe", pure=True).load_all(read(name)))


def instruction(name):
    """Return what follows the only instruction of this name in the Dockerfile."""
    joined = read("Dockerfile").replace("\\\n", " ")
    (line,) = re.findall(rf"^{name} (.*)", joined, re.MULTILINE)
    return line


def resolved(arguments):
    """Return the settings of a command line that the program accepts, or fail."""
    words = list(arguments)
    if words[0] in COMMANDS:
        words.pop(0)
    return load(*parse_flags(words))


def test_every_place_installs_the_same_packages_for_rendering():
    packages = INSTALL_COMMAND.removeprefix("sudo apt-get install ").split()
    assert len(packages) > 1
    for name in ("Dockerfile", "tools/ensure_rendering.sh"):
        text = re.sub(r"\\\n\s*", "", read(name))
        (found,) = re.findall(r"apt-get install .*--no-install-recommends ([\w -]+)", text)
        assert found.split() == packages, name


def test_cuda_is_pinned_as_this_tensorflow_asks_for():
    asked = [Requirement(line) for line in importlib.metadata.requires("tensorflow")]
    asked = {each.name: each.specifier for each in asked if "and-cuda" in str(each.marker)}
    lines = read("requirements-cuda.txt").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins.keys() == asked.keys() and len(pins) > 5
    assert all(asked[name].contains(version) for name, version in pins.items())


def test_the_image_holds_what_the_program_reads():
    sent = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in sent)
    assert {"run.py", "configs.yaml", "dreamer_bird", "baselines", "requirements.txt"} <= {*sent}
    copied = re.findall(r"^COPY (?:\.|(\S+)) ", read("Dockerfile"), re.MULTILINE)
    assert {name for name in copied if name} <= {*sent}


def test_the_entry_point_and_the_health_check_are_commands_of_the_program(monkeypatch):
    assert json.loads(instruction("ENTRYPOINT")) == ["python", "/app/run.py"]
    python, script, command, flag, *parts = json.loads(
        instruction("HEALTHCHECK").partition("CMD ")[2]
    )
    assert [python, script] == json.loads(instruction("ENTRYPOINT"))
    assert (command, flag) == ("doctor", "--part")
    # It may neither start TensorFlow or a worker, nor trip over the run that is going on.
    for trial in ("try_training", "try_environment", "check_logdir"):
        monkeypatch.setattr(doctor, trial, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert doctor.main([flag, *parts]) == 0


def test_gpu_check_may_leave_its_findings_in_the_image():
    made = re.search(r"install -d -o (\d+) -g \1 (.*)", read("Dockerfile"))
    assert made[1] == instruction("USER")
    default = gpu_check._parse([]).outdir
    assert str(default) in made[2].split() and instruction("WORKDIR") == "/app"


def test_the_compose_file_trains_where_tensorboard_looks():
    (compose,) = documents("compose.yaml")
    train, board = compose["services"]["train"], compose["services"]["tensorboard"]
    resolved(train["command"])
    (volume,) = train["volumes"]
    assert volume["target"] == instruction("VOLUME") and board["volumes"] == [volume]
    assert f"--logdir={volume['target']}" in board["entrypoint"]


def test_the_kubernetes_job_examines_what_it_then_trains():
    claim, job = documents("deploy/kubernetes-job.yaml")
    pod = job["spec"]["template"]["spec"]
    (first,), (train,) = pod["initContainers"], pod["containers"]
    index = "$(JOB_COMPLETION_INDEX)"
    seeds = [[word.replace(index, "3") for word in each["args"]] for each in (first, train)]
    assert first["args"][0] == "doctor" and resolved(seeds[0]) == resolved(seeds[1])
    assert resolved(seeds[1]).seed == 3
    (mount,), (volume,) = train["volumeMounts"], pod["volumes"]
    assert mount["mountPath"] == instruction("VOLUME")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert pod["securityContext"]["runAsUser"] == int(instruction("USER"))


@pytest.mark.parametrize(
    ("status", "requeued"), [(0, []), (1, []), (143, ["scontrol requeue 70_2"])]
)
def test_the_slurm_array_is_queued_again_after_sigterm_alone(tmp_path, status, requeued):
    log = tmp_path / "log"
    for name in ("srun", "scontrol"):
        script = f'#!/bin/sh\necho {name} "$@" >> {log}\nexit {status if name == "srun" else 0}\n'
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "2"}
    line = ["bash", str(ROOT / "deploy/slurm-array.sh"), "--variant", "dreamer"]
    assert subprocess.run(line, env=env, timeout=20).returncode == status
    started, *rest = log.read_text().splitlines()
    assert rest == requeued
    program = "srun --cpus-per-task=2 .venv/bin/python run.py "
    assert started.startswith(program)
    config = resolved(started.removeprefix(program).split())
    assert (config.variant, config.seed) == ("dreamer", 2)


@pytest.mark.parametrize(("gpus", "cuda"), [("GPU 0: NVIDIA GeForce", True), ("", False)])
def test_make_installs_cuda_where_there_is_a_gpu(tmp_path, gpus, cuda):
    venv, pins = tmp_path / "venv", read("requirements-cuda.txt")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho {gpus}\n")
    # Stands in for Python: what it is asked to install it keeps, and "makes" the environment.
    (tmp_path / "python3").write_text(
        "#!/bin/sh\nfor last; do :; done\n"
        f'case "$*" in *"-m venv"*) mkdir -p {venv}/bin; touch {venv}/pyvenv.cfg;'
        f' cp "$0" {venv}/bin/python ;;\n'
        f'*"pip install"*) cp "$last" {tmp_path}/installed ;; esac\n'
    )
    for name in ("nvidia-smi", "python3"):
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    line = [str(ROOT / "tools/ensure_venv.sh"), str(venv)]
    for _ in range(2):
        subprocess.run(line, env=env, timeout=20, check=True)
        installed = (tmp_path / "installed").read_text()
        assert read("requirements.txt") in installed and (pins in installed) == cuda
        assert (venv / "pins").read_text() == installed
        (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # it is not needed twice
    (venv / "pins").write_text("of before")  # what works is not made anew for other pins
    subprocess.run(line, env=env, timeout=20, check=True)
    assert (venv / "pins").read_text() == installed
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")  # of a machine that shares the folder
    (tmp_path / "installed").unlink()
    subprocess.run(line, env=env, timeout=20, check=True)
    assert not (tmp_path / "installed").exists()
