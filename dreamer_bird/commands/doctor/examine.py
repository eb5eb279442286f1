"""The command: examines one part after the other, and prints a line for each."""

import fcntl
import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from dreamer_bird.commands.arguments import Parser, parse_flags
from dreamer_bird.commands.doctor import findings
from dreamer_bird.commands.doctor.findings import Finding, Frames, Probe
from dreamer_bird.config import CONFIG_FILE, Config, load
from dreamer_bird.envs import OBSERVATIONS
from dreamer_bird.envs.rendering import INSTALL_COMMAND
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training import resources
from dreamer_bird.training.logdir import check_logdir
from dreamer_bird.utils import machine
from dreamer_bird.utils.files import nearest_existing


def main(arguments: list[str]) -> int:
    """Print a line for each part examined; return 1 if training would fail."""
    flags, settings = _parse(arguments)
    case = Case(load(*parse_flags(settings)), settings)
    failed = False
    for name, examine in PARTS.items():
        if name in flags.part:
            finding = examine(case)
            status = "FAIL" if finding.fatal else "NOTE" if finding.advice else "OK"
            line = f"{finding.text}: {finding.advice}" if finding.advice else finding.text
            print(f"{status:5} {name:11} {line}", flush=True)
            failed |= finding.fatal
    return int(failed)


class Case:
    """What is examined, and what one part finds out for others."""

    def __init__(self, config: Config, settings: list[str]):
        """Take the settings twice: resolved, and as they were given."""
        self.config, self.settings = config, settings
        self.frame_bytes = 3 * config.env.size**2 * ("image" in OBSERVATIONS[config.obs])
        self.learner_bytes = self.worker_bytes = self.checkpoint_bytes = 0.0  # until tried
        self.hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")

    @cached_property
    def gpus(self) -> list[machine.Gpu]:
        """The GPUs that the driver shows, none where it fails."""
        with suppress(RunError):
            return machine.gpus()
        return []

    @cached_property
    def probe(self) -> Probe:
        """What became of a training step."""
        try:
            from dreamer_bird.commands.doctor.trials import try_training
        except ImportError as error:
            return Probe(None, None, str(error))
        return try_training(self.settings)


def _gpu(case: Case) -> Finding:
    try:
        gpus = machine.gpus()
    except RunError as error:
        advice = f"mend NVIDIA's driver; {findings.ON_PURPOSE}"
        return Finding(str(error), "" if case.hidden else advice, fatal=not case.hidden)
    installed, missing = _cuda_packages()
    return findings.of_gpu(gpus, case.hidden, cuda=bool(installed) and not missing)


def _tensorflow(case: Case) -> Finding:
    gpu = case.gpus[0].name if case.gpus and not case.hidden else ""
    _, missing = _cuda_packages()
    remedies = _requirements()[1], _cuda_remedy()
    return findings.of_tensorflow(case.probe, gpu, case.config.devices, missing, remedies)


def _training(case: Case) -> Finding:
    train, training = case.config.train, case.probe.training
    if training:
        case.learner_bytes = training["learner_bytes"]
        case.checkpoint_bytes = training["checkpoint_bytes"]
    # As far as episodes last until their limit.
    trained = case.config.steps - train.prefill * case.config.env.time_limit
    blocks = max(0, trained // train.every + 1)
    return findings.of_training(case.probe, blocks * train.updates)


def _rendering(case: Case) -> Finding:
    try:
        from dreamer_bird.commands.doctor.trials import try_environment

        frames = try_environment(case.config)
    except ImportError as error:
        frames = Frames("", "", 0, 0, str(error))
    case.worker_bytes = frames.worker_bytes
    chosen = os.environ.get("MUJOCO_GL", "")
    return findings.of_rendering(frames, bool(case.gpus), chosen, INSTALL_COMMAND)


def _memory(case: Case) -> Finding:
    needed = resources.replay_bytes(case.config, case.frame_bytes)
    needed += case.learner_bytes + (case.config.envs + 1) * case.worker_bytes
    return findings.of_memory(needed, *machine.free_memory())


def _disk(case: Case) -> Finding:
    logdir = Path(case.config.logdir)
    most = resources.disk_bytes(case.config, case.frame_bytes, case.checkpoint_bytes)
    for path in (*logdir.glob("checkpoints/*.npz"), *logdir.glob("episodes/*.npz")):
        with suppress(OSError):  # a run that is going on removes some
            most -= path.stat().st_size
    folder = nearest_existing(logdir.resolve())
    free = shutil.disk_usage(folder).free
    return findings.of_disk(max(0, most), case.checkpoint_bytes, free, folder)


def _logdir(case: Case) -> Finding:
    """Try to write where the run would, and see that no other run does."""
    path = Path(case.config.logdir)
    try:
        check_logdir(case.config)
        with tempfile.TemporaryFile(dir=nearest_existing(path)) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        holder = _holder(path / "lock")
    except OSError as error:
        return Finding(f"{path}: {error.strerror}", "choose another --logdir", fatal=True)
    except ConfigError as error:
        return Finding(str(error), "choose another --logdir", fatal=True)
    if holder:
        return Finding(f"{holder} is writing in {path}", "choose another --logdir", fatal=True)
    return Finding(f"{path} can be written")


def _holder(lock: Path) -> str:
    """Return which run holds a lock, "" if none does."""
    if lock.exists():
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another run"
    return ""


def _requirements() -> tuple[list[str], str]:
    """Return the pins of a checkout and what installs them, or what the package asks for."""
    pins = CONFIG_FILE.with_name("requirements.txt")
    if pins.exists():
        lines = pins.read_text().splitlines()
        return [line for line in lines if line and line[0] != "#"], _pip(f"--no-deps -r {pins}")
    name = "dreamer-bird"
    return (importlib.metadata.requires(name) or [] if _version(name) else []), ""


def _cuda_packages() -> tuple[list[str], list[str]]:
    """Return which packages that TensorFlow asks for on a GPU are installed, and which are not."""
    found: tuple[list[str], list[str]] = ([], [])
    with suppress(importlib.metadata.PackageNotFoundError):  # TensorFlow itself
        for line in importlib.metadata.requires("tensorflow") or []:
            name = re.split(r"[^\w-]", line)[0]
            if "and-cuda" in line:
                found[_version(name) is None].append(name)
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cuda_remedy() -> str:
    pins = CONFIG_FILE.with_name("requirements-cuda.txt")
    if pins.exists():
        return _pip(f"--no-deps -r {pins}")
    return _pip(f"'tensorflow[and-cuda]=={_version('tensorflow')}'")


def _pip(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {arguments}"


PARTS: dict[str, Callable[[Case], Finding]] = {
    "python": lambda case: findings.of_python(sys.version_info[:3]),
    "packages": lambda case: findings.of_packages(*_requirements(), _version),
    "logdir": _logdir,
    "cores": lambda case: findings.of_cores(*machine.cores(), case.config.threads, os.environ),
    "gpu": _gpu,
    "tensorflow": _tensorflow,
    "precision": lambda case: findings.of_precision(case.probe),
    "training": _training,
    "rendering": _rendering,
    "memory": _memory,
    "disk": _disk,
}


def _parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    parser = Parser("doctor", "Tell whether training would work here, and what to do if not.")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="(all)")
    parser.epilog = "Presets and settings as for training: --configs cpu --precision float32 ..."
    return parser.parse_known_args(arguments)
