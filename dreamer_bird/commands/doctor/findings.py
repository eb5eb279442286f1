"""What `doctor` makes of what it has found: one finding each, told from values alone."""

import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from dreamer_bird.utils.machine import Gpu

OLDEST_DRIVER = "525.60.13"  # that CUDA 12 runs on, as NVIDIA's release notes say
PATIENCE = 3 * 86400  # seconds of updates, beyond which a smaller size is suggested
ON_PURPOSE = "CUDA_VISIBLE_DEVICES=-1 trains on the CPU on purpose"


class Finding(NamedTuple):
    """What was found, what to do about it if anything, and whether training would fail."""

    text: str
    advice: str = ""
    fatal: bool = False


class Probe(NamedTuple):
    """What a process of its own, with TensorFlow, found out before it ended or failed."""

    tensorflow: Mapping | None  # version, gpus (name and capability), precision, auto
    training: Mapping | None  # step_s, first_step_s, learner_bytes, checkpoint_bytes
    error: str  # the last line that it wrote, where it failed


class Frames(NamedTuple):
    """How an environment's worker fared."""

    backend: str  # as MUJOCO_GL has it
    renderer: str  # as OpenGL calls itself, "" where nothing is rendered
    worker_bytes: float
    milliseconds: float  # an agent step
    error: str = ""


def of_python(version: tuple[int, int, int]) -> Finding:
    """Judge the interpreter's version."""
    text = ".".join(map(str, version))
    if (3, 10) <= version[:2] <= (3, 13):
        return Finding(text)
    return Finding(text, "the pinned packages are for Python 3.10 to 3.13")


def of_packages(
    requirements: Iterable[str], remedy: str, installed: Callable[[str], str | None]
) -> Finding:
    """Compare lines of requirements, pins or ranges, with the versions that are `installed`.

    `remedy` is the command that installs all of them, if there is one.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return Finding("packaging is missing", remedy or "pip install packaging")
    wrong, total, wanted = [], 0, []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        total += 1
        name, version = requirement.name, installed(requirement.name)
        if version and requirement.specifier.contains(version, prereleases=True):
            continue
        asked = str(requirement.specifier)
        wrong.append(
            f"{name} {version} instead of {asked.removeprefix('==')}"
            if version
            else f"{name} is missing"
        )
        wanted.append(shlex.quote(name + asked))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        advice = remedy or f"pip install {' '.join(wanted)}"
        return Finding(", ".join(wrong[:3]) + more, advice)
    return Finding(f"{total} as required")


def of_cores(
    usable: int, quota: float, setting: int | None, environment: Mapping[str, str]
) -> Finding:
    """Judge whether TensorFlow starts far more threads than there are cores' time for."""
    variable = environment.get("TF_NUM_INTRAOP_THREADS", "")
    threads = setting or (int(variable) if variable.isdigit() else 0) or usable
    text = f"{usable}" if quota >= usable else f"the time of {quota:g} of {usable}"
    # A thread a core is TensorFlow's default. Twice as many made no difference; 16 for half a core
    # made an update of the preset debug 1.5 to 1.9 times as slow as one did.
    if threads > 2 * math.ceil(quota):
        return Finding(f"{text}, for {threads} threads", f"add --threads {math.ceil(quota)}")
    return Finding(text)


def of_gpu(gpus: list[Gpu], hidden: bool, cuda: bool) -> Finding:
    """Judge NVIDIA's driver and what it shows.

    `hidden`: an environment variable hides it from CUDA; `cuda`: the CUDA packages are installed.
    """
    if not gpus:
        advice = "in a container: start it with --gpus all" if cuda and not hidden else ""
        return Finding("no NVIDIA GPU", advice)
    driver = gpus[0].driver
    text = ", ".join(f"{gpu.name} with {gpu.free} of {gpu.memory} free" for gpu in gpus)
    text += f", driver {driver}"
    if _numbers(driver) < _numbers(OLDEST_DRIVER) and not hidden:
        advice = f"CUDA 12 needs driver {OLDEST_DRIVER} or newer; {ON_PURPOSE}"
        return Finding(text, advice, fatal=True)
    return Finding(text)


def of_tensorflow(
    probe: Probe, gpu: str, devices: int, missing_cuda: list[str], remedies: tuple[str, str]
) -> Finding:
    """Judge whether TensorFlow loads, and sees the GPU that the driver shows, "" if none.

    `devices` are wanted; `remedies` are the commands that install the packages, and those of CUDA.
    """
    if probe.tensorflow is None:
        advice = remedies[0] or "see the packages"
        return Finding(f"does not load: {probe.error}", advice, fatal=True)
    version, seen = probe.tensorflow["version"], probe.tensorflow["gpus"]
    if seen:
        names = ", ".join(f"{name} (compute capability {capability})" for name, capability in seen)
        if devices > len(seen):
            return Finding(f"{version}, on {names} alone", f"--devices {len(seen)}", fatal=True)
        return Finding(f"{version}, on {names}")
    if not gpu:
        return Finding(f"{version}, on the CPU")
    if missing_cuda:
        advice = f"{missing_cuda[0]} is missing: {remedies[1]}"
    else:
        advice = "import it with TF_CPP_MIN_LOG_LEVEL=0 set to see why"
    return Finding(f"{version} does not see the {gpu}", f"{advice}; {ON_PURPOSE}", fatal=True)


def of_precision(probe: Probe) -> Finding:
    """Judge the number format against the one that this machine computes fastest."""
    if probe.tensorflow is None:
        return Finding("unknown without TensorFlow")
    chosen, auto = probe.tensorflow["precision"], probe.tensorflow["auto"]
    if chosen not in (auto, "float32"):
        return Finding(chosen, f"--precision auto would choose {auto}")
    return Finding(chosen if chosen == auto else f"{chosen}; --precision auto: {auto}")


def of_training(probe: Probe, updates: int) -> Finding:
    """Judge the update that was tried; `updates` is how many the run makes."""
    if probe.training is None:
        text = probe.error if probe.tensorflow else "TensorFlow does not load"
        return Finding(f"no update: {text}", "if memory is short: --configs cpu", fatal=True)
    seconds = probe.training["step_s"]
    text = f"an update takes {seconds:.3g} s, the run's {updates:,} {_duration(seconds * updates)}"
    if seconds * updates > PATIENCE and not probe.tensorflow["gpus"]:
        return Finding(text, "without a GPU --configs cpu is of a size to wait for")
    return Finding(text)


def of_rendering(frames: Frames, gpu: bool, chosen: str, install: str) -> Finding:
    """Judge the environment's worker; `chosen` is MUJOCO_GL, `install` what brings OpenGL."""
    if frames.error:
        advice = f"MUJOCO_GL={chosen} is set: unset it" if chosen else f"if OpenGL: {install}"
        if install in frames.error:
            advice = "then try again"
        return Finding(frames.error, advice, fatal=True)
    text = f"{frames.milliseconds:.1f} ms an agent step"
    if not frames.renderer:
        return Finding(f"{text}, nothing is rendered")
    text += f", {frames.backend}, {frames.renderer}"
    if gpu and any(name in frames.renderer for name in ("llvmpipe", "softpipe")):
        return Finding(
            text,
            "the GPU could render: in a container NVIDIA_DRIVER_CAPABILITIES must have graphics, "
            "outside of one the driver's libEGL_nvidia is missing",
        )
    return Finding(text)


def of_memory(needed: float, free: float, limited: bool) -> Finding:
    """Compare bytes; `limited`: a control group sets the limit."""
    text = f"{_gb(needed)} needed, {_gb(free)} free" + " in this container or job" * limited
    if needed > free:
        where = "give it more" if limited else "end other programs"
        return Finding(text, f"{where}, or lower --replay.capacity or --replay.batch", fatal=True)
    return Finding(text)


def of_disk(most: float, surely: float, free: float, folder: Path) -> Finding:
    """Compare bytes: what a run takes at most, what surely, and what is free in a folder."""
    text = f"{_gb(most)} needed at most, {_gb(free)} free in {folder}"
    if free < surely:
        return Finding(text, "make room, or choose another --logdir", fatal=True)
    if free < most:
        return Finding(text, "it may be full before the run ends; or lower --replay.capacity")
    return Finding(text)


def _numbers(version: str) -> list[int]:
    return [int(word) for word in version.split(".") if word.isdigit()]


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
