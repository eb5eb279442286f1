"""The command: examines one part after the other, and prints a line for each."""

import fcntl
import importlib.metadata
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dreamer_bird.commands.arguments import Parser, check_importable, parse_flags
from dreamer_bird.commands.doctor.trials import Frames, Probe, try_environment, try_training
from dreamer_bird.config import CONFIG_FILE, Config, load
from dreamer_bird.envs.rendering import mend
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training import resources
from dreamer_bird.training.logdir import check_logdir
from dreamer_bird.training.writers import check_loggers
from dreamer_bird.utils import machine
from dreamer_bird.utils.files import nearest_existing
from dreamer_bird.utils.tensorflow import intraop_threads

OLDEST_DRIVER = [525, 60, 13]  # that CUDA 12 runs on, as NVIDIA's release notes say
PATIENCE = 3 * 86400  # seconds of updates, beyond which a smaller size is suggested
ON_PURPOSE = "CUDA_VISIBLE_DEVICES=-1 trains on the CPU on purpose"


def main(arguments: list[str]) -> int:
    """Print a line for each part examined; return 1 if training would fail."""
    flags, settings = _parse(arguments)
    config = load(*parse_flags(settings))
    check_importable(config)
    case = Case(config, settings)
    failed = False
    for name, examine in PARTS.items():
        if name in flags.part:
            finding = examine(case)
            status = "FAIL" if finding.fatal else "NOTE" if finding.advice else "OK"
            line = f"{finding.text}: {finding.advice}" if finding.advice else finding.text
            print(f"{status:5} {name:11} {line}", flush=True)
            failed |= finding.fatal
    return int(failed)


class Finding(NamedTuple):
    """What was found, what to do about it if anything, and whether training would fail."""

    text: str
    advice: str = ""
    fatal: bool = False


class Case:
    """What is examined, and what more than one part asks for."""

    def __init__(self, config: Config, settings: list[str]):
        """Take the settings twice: resolved, and as they were given."""
        self.config, self.settings = config, settings
        self.frame_bytes = resources.image_bytes(config)
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
        return try_training(self.settings)

    @cached_property
    def frames(self) -> Frames:
        """What became of steps of the environment."""
        return try_environment(self.config)


def _python(case: Case) -> Finding:
    text = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
    return Finding(text, "" if fits else "the pinned packages are for Python 3.10 to 3.13")


def _packages(case: Case) -> Finding:
    """Compare the requirements, pins or ranges, with the versions that are installed."""
    try:
        check_loggers(case.config)
    except ConfigError as error:
        return Finding(str(error), fatal=True)
    requirements, remedy = _requirements()
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Finding("packaging is missing", remedy or "pip install packaging")
    wrong, total, wanted = [], 0, []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        total += 1
        name, asked, version = requirement.name, requirement.specifier, _version(requirement.name)
        if version is None:
            wrong.append(f"{name} is missing")
        elif not asked.contains(version, prereleases=True):
            wrong.append(f"{name} {version} instead of {str(asked).removeprefix('==')}")
        else:
            continue
        wanted.append(shlex.quote(f"{name}{asked}"))
    if not wrong:
        return Finding(f"{total} as required")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Finding(", ".join(wrong[:3]) + more, remedy or f"pip install {' '.join(wanted)}")


def _logdir(case: Case) -> Finding:
    """Try to write where the run would, and see that no other run does."""
    path = Path(case.config.logdir)
    try:
        check_logdir(case.config)
        with tempfile.TemporaryFile(dir=nearest_existing(path)) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        wrong = _holder(path)
    except OSError as error:
        wrong = f"{path}: {error.strerror}"
    except ConfigError as error:
        wrong = str(error)
    if wrong:
        return Finding(wrong, "choose another --logdir", fatal=True)
    return Finding(f"{path} can be written")


def _cores(case: Case) -> Finding:
    """Judge whether TensorFlow starts far more threads than there are cores' time for."""
    usable, quota = machine.cores()
    threads = case.config.threads or intraop_threads()
    text = f"{usable}" if quota >= usable else f"the time of {quota:g} of {usable}"
    # A thread a core is TensorFlow's default. Twice as many made no difference; 16 for half a core
    # made an update of the preset debug 1.5 to 1.9 times as slow as one did.
    if threads > 2 * math.ceil(quota):
        return Finding(f"{text}, for {threads} threads", f"add --threads {math.ceil(quota)}")
    return Finding(text)


def _gpu(case: Case) -> Finding:
    """Judge NVIDIA's driver and what it shows."""
    try:
        gpus = machine.gpus()
    except RunError as error:
        advice = "" if case.hidden else f"mend NVIDIA's driver; {ON_PURPOSE}"
        return Finding(str(error), advice, fatal=not case.hidden)
    if not gpus:
        packages = _cuda_packages()
        wanted = packages and None not in packages.values() and not case.hidden
        return Finding("no NVIDIA GPU", "in a container: start it with --gpus all" * bool(wanted))
    driver = gpus[0].driver
    text = ", ".join(f"{gpu.name} with {gpu.free} of {gpu.memory} free" for gpu in gpus)
    text += f", driver {driver}"
    version = [int(word) for word in driver.split(".") if word.isdigit()]
    if version < OLDEST_DRIVER and not case.hidden:
        oldest = ".".join(map(str, OLDEST_DRIVER))
        return Finding(text, f"CUDA 12 needs driver {oldest} or newer; {ON_PURPOSE}", fatal=True)
    return Finding(text)


def _tensorflow(case: Case) -> Finding:
    """Judge whether TensorFlow loads, and sees the GPU that the driver shows."""
    if case.probe.tensorflow is None:
        advice = _requirements()[1] or "see the packages"
        return Finding(f"does not load: {case.probe.error}", advice, fatal=True)
    version, seen = case.probe.tensorflow["version"], case.probe.tensorflow["gpus"]
    if seen:
        names = ", ".join(f"{name} (compute capability {capability})" for name, capability in seen)
        if case.config.devices > len(seen):
            return Finding(f"{version}, on {names} alone", f"--devices {len(seen)}", fatal=True)
        return Finding(f"{version}, on {names}")
    if case.hidden or not case.gpus:
        return Finding(f"{version}, on the CPU")
    advice = "import it with TF_CPP_MIN_LOG_LEVEL=0 set to see why"
    if missing := [name for name, installed in _cuda_packages().items() if not installed]:
        pins = CONFIG_FILE.with_name("requirements-cuda.txt")
        asked = f"--no-deps -r {pins}" if pins.exists() else f"'tensorflow[and-cuda]=={version}'"
        advice = f"{missing[0]} is missing: {_pip(asked)}"
    text = f"{version} does not see the {case.gpus[0].name}"
    return Finding(text, f"{advice}; {ON_PURPOSE}", fatal=True)


def _precision(case: Case) -> Finding:
    """Judge the number format against the one that this machine computes fastest."""
    if case.probe.tensorflow is None:
        return Finding("unknown without TensorFlow")
    chosen, auto = case.probe.tensorflow["precision"], case.probe.tensorflow["auto"]
    if chosen not in (auto, "float32"):
        return Finding(chosen, f"--precision auto would choose {auto}")
    return Finding(chosen if chosen == auto else f"{chosen}; --precision auto: {auto}")


def _training(case: Case) -> Finding:
    """Judge the update that was tried, and the time of all that the run makes."""
    config, probe = case.config, case.probe
    if probe.training is None:
        text = probe.error if probe.tensorflow else "TensorFlow does not load"
        return Finding(f"no update: {text}", "if memory is short: --configs cpu", fatal=True)
    trained = config.steps - resources.random_steps(config)
    updates = max(0, trained // config.train.every + 1) * config.train.updates
    seconds = probe.training["step_s"]
    text = f"an update takes {seconds:.3g} s, the run's {updates:,} {_duration(seconds * updates)}"
    slow = seconds * updates > PATIENCE and not probe.tensorflow["gpus"]
    return Finding(text, "without a GPU --configs cpu is of a size to wait for" * slow)


def _rendering(case: Case) -> Finding:
    """Judge the environment's worker."""
    frames = case.frames
    if frames.error:
        advice = mend(frames.error, os.environ.get("MUJOCO_GL")) if "GL" in frames.error else ""
        return Finding(frames.error, advice, fatal=True)
    text = f"{frames.milliseconds:.1f} ms an agent step"
    if not frames.repeats:
        why = "reset(seed=...) with one seed gave two episodes"
        return Finding(f"{text}; {why}", "no exact resume, and no evaluation is repeated")
    if not frames.renderer:
        return Finding(f"{text}, without OpenGL")
    text += f", {frames.backend}, {frames.renderer}"
    if case.gpus and frames.in_software:
        return Finding(
            text,
            "the GPU could render: in a container NVIDIA_DRIVER_CAPABILITIES must have graphics, "
            "outside of one the driver's libEGL_nvidia is missing",
        )
    return Finding(text)


def _memory(case: Case) -> Finding:
    learner = (case.probe.training or {}).get("learner_bytes", 0)
    workers = (case.config.envs + 1) * case.frames.worker_bytes
    needed = learner + workers + resources.replay_bytes(case.config, case.frame_bytes)
    free, limited = machine.free_memory()
    text = f"{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
    text += " in this container or job" * limited
    if needed > free:
        where = "give it more" if limited else "end other programs"
        return Finding(text, f"{where}, or lower --replay.capacity or --replay.batch", fatal=True)
    return Finding(text)


def _disk(case: Case) -> Finding:
    logdir = Path(case.config.logdir)
    checkpoint = (case.probe.training or {}).get("checkpoint_bytes", 0)
    most = resources.disk_bytes(case.config, case.frame_bytes, checkpoint)
    most -= resources.written_bytes(logdir)
    folder = nearest_existing(logdir.resolve())
    free = shutil.disk_usage(folder).free
    text = f"{max(0, most) / 1e9:.2f} GB needed at most, {free / 1e9:.2f} GB free in {folder}"
    if free < checkpoint:
        return Finding(text, "make room, or choose another --logdir", fatal=True)
    full = "it may be full before the run ends; or lower --replay.capacity"
    return Finding(text, full if free < most else "")


_EXAMINED = (
    *(_python, _packages, _logdir, _cores, _gpu, _tensorflow),
    *(_precision, _training, _rendering, _memory, _disk),
)
PARTS = {examine.__name__[1:]: examine for examine in _EXAMINED}


def _holder(logdir: Path) -> str:
    """Return which run is writing in a logdir, "" if none is."""
    if (logdir / "lock").exists():
        with (logdir / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"{file.read().strip() or 'another run'} is writing in {logdir}"
    return ""


def _requirements() -> tuple[list[str], str]:
    """Return the pins of a checkout and what installs them, or what the package asks for."""
    pins = CONFIG_FILE.with_name("requirements.txt")
    if pins.exists():
        lines = pins.read_text().splitlines()
        return [line for line in lines if line and line[0] != "#"], _pip(f"--no-deps -r {pins}")
    return _required("dreamer-bird"), ""


def _cuda_packages() -> dict[str, str | None]:
    """Return the packages that TensorFlow asks for on a GPU, with the versions installed."""
    lines = [line for line in _required("tensorflow") if "and-cuda" in line]
    return {name: _version(name) for name in (re.split(r"[^\w-]", line)[0] for line in lines)}


def _required(name: str) -> list[str]:
    return (importlib.metadata.requires(name) or []) if _version(name) else []


def _version(name: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _pip(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} -m pip install {arguments}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    parser = Parser(
        "doctor", "Tell whether training would work here, and what to do if not.", "--configs cpu"
    )
    parser.add_argument(
        "--part",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        metavar="PART",
        help=f"what to check (all): {', '.join(PARTS)}",
    )
    parser.epilog = "Presets and settings as for training: --configs cpu --precision float32 ..."
    return parser.parse_beside_settings(arguments)
