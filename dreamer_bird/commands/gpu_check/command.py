"""The command: makes one trial after the other, and prints a line for each."""

import importlib.metadata
import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from dreamer_bird.commands.arguments import Parser, as_path, make_folder, whole
from dreamer_bird.commands.doctor.trials import try_environment
from dreamer_bird.commands.gpu_check.trials import BLOCKS_AFTER, BLOCKS_BEFORE, in_process, try_run
from dreamer_bird.config import load
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.utils import machine
from dreamer_bird.utils.files import check_writable, replacing

FILE = "gpu-check.json"
LEAST = 20.0  # seconds, with less than which no trial begins
LIMIT = 600.0  # seconds of a trial at most: XLA alone compiles for minutes
CORES, MEMORY = 4, 20  # of a trial made beside others: processor cores, and GB of the GPU
AMPERE = (8, 0)  # the compute capability from which on there are TF32 and bfloat16

SIZE = "dreamer_tf2"  # the one that all is tried with
SIZES = {SIZE: ["--configs", SIZE], "paper": [], "cpu": ["--configs", "cpu"]}
FEW = [*SIZES[SIZE], "--replay.batch", "6", "--replay.length", "10"]
# The paper's 100 updates to 1,000 environment steps, in blocks of ten.
RUN = {"env.time_limit": 100, "train.every": 100, "train.updates": 10, "train.prefill": 1}
# Some more than asked for, since a run goes on until it is seen to be due for the signal.
RUN |= {"train.prefill_steps": 0, "steps": 100 * (BLOCKS_BEFORE + BLOCKS_AFTER + 5)}

PLAIN = ["--precision", "float32", "--xla", "false"]

# How far the gradients of a part, or a loss, may be from the CPU's in float32, relative to it. In
# half precision three times the most that was seen on a CPU (0.035 and 0.011, at three sizes), of
# which most is rounding to 8 and 11 bits in some ten products one behind the other. What is wrong
# (a layout, another random number) is off by about 1.
BOUNDS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.03}


class Mode(NamedTuple):
    """A number format of which a step is timed."""

    name: str
    precision: str
    tf32: bool


class Check:
    """What was found so far, in the time that all trials share."""

    def __init__(self, seconds: float, outdir: Path, echo: bool):
        """Take how long it may take, where gpu-check.json goes, and whether lines are printed."""
        self._end, self._path, self._echo = time.monotonic() + seconds, outdir / FILE, echo
        self.folder, self.workers, self._lock = str(outdir), 1, Lock()
        self.found = {"lines": []}
        # Steps by mode and XLA, "true" or "false"; precision and XLA of what agrees with the CPU.
        self.steps: dict[tuple[Mode, str], dict] = {}
        self.agreed: set[tuple[str, str]] = set()
        self.run_alone: dict | None = None  # figures of the run that had nothing beside it

    def beside(self, trials: Sequence[Callable[[], None]]) -> None:
        """Make trials beside one another, where there is room."""
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(lambda trial: trial(), trials))

    def run(self, part: str, what: str, trial: Callable[[float], object]) -> object | None:
        """Return what a trial finds in the seconds left, None if it fails: then a line says why."""
        left = self._end - time.monotonic()
        if left < LEAST:
            self.add(part, what, "SKIP", "no time left: --minutes gives more")
            return None
        start = time.monotonic()
        try:
            return trial(min(LIMIT, left))
        except Exception as error:  # whatever it is, the other trials still tell something
            lines = str(error).splitlines() or [type(error).__name__]
            self.add(part, what, "FAIL", f"{lines[-1]} ({time.monotonic() - start:.0f} s)")
            return None

    def add(self, part: str, what: str, status: str, text: str, figures: object = None) -> None:
        """Add a line, print it, and write all, to be there whatever ends this process."""
        line = {"part": part, "what": what, "status": status, "text": text}
        with self._lock:
            self.found["lines"].append(line | ({"figures": figures} if figures else {}))
            if self._echo:
                print(f"{status:4} {part:9} {what:24} {text}", flush=True)
            with replacing(self._path) as file:
                file.write(json.dumps(self.found, indent=1).encode())

    @property
    def failed(self) -> bool:
        """Whether a trial failed."""
        return any(line["status"] == "FAIL" for line in self.found["lines"])


def main(arguments: list[str]) -> int:
    """Print a line for each trial, or with --json all as one object; return 1 if one failed."""
    flags = _parse(arguments)
    check_writable(f"--outdir {flags.outdir}", flags.outdir)
    seen = in_process("look_around", LIMIT)
    if not seen["gpus"]:
        raise ConfigError("no GPU that TensorFlow can use: `run.py doctor` says what to do")
    make_folder("--outdir", flags.outdir)
    check = Check(60 * flags.minutes, flags.outdir, echo=not flags.json)
    examine(check, seen)
    if flags.json:
        print(json.dumps(check.found))
    else:
        print(f"{flags.outdir / FILE}: send it in with an issue, or keep it under results/")
    return int(check.failed)


def examine(check: Check, seen: Mapping) -> None:
    """Make all trials: what matters most first, and what XLA compiles, for minutes, later."""
    modes = modes_of(tuple(seen["capability"]), seen["precision"])
    name_machine(check, seen)
    if len(modes) == 2:
        check.add("step", "TF32, bfloat16", "SKIP", "need compute capability 8.0")
    try_updates(check, modes, "false")
    first, *others = seen["variants"]
    check.run_alone = play(check, first)
    check.beside([partial(play, check, variant) for variant in others])
    if len(seen["gpus"]) > 1:
        one, two = [["GPU:0"], PLAIN], [["GPU:0", "GPU:1"], PLAIN]
        compare(check, "devices", "two as one", BOUNDS["float32"], FEW, one, two)
    try_updates(check, modes, "true")
    choose(check)
    for xla in ("false", "true"):
        others = [(size, mode) for size in ("paper", "cpu") for mode in modes]
        check.beside([partial(time_step, check, *each, xla) for each in others])


def try_updates(check: Check, modes: Sequence[Mode], xla: str) -> None:
    """Time steps in all number formats, hold each precision against the CPU's, and overflow."""
    precisions = dict.fromkeys(mode.precision for mode in modes)
    tries = [partial(time_step, check, SIZE, mode, xla) for mode in modes]
    tries += [partial(agree, check, FEW, "CPU:0", "GPU:0", each, xla) for each in precisions]
    check.beside([*tries, partial(overflow, check, FEW, "GPU:0", xla)])


def modes_of(capability: tuple[int, int], first: str) -> list[Mode]:
    """Return the number formats that a GPU of that compute capability has, one of them first."""
    newer = [Mode("bfloat16", "bfloat16", True), Mode("TF32", "float32", True)]
    newer = newer if capability >= AMPERE else []
    modes = [*newer, Mode("float16", "float16", True), Mode("float32", "float32", False)]
    return sorted(modes, key=lambda mode: mode.precision != first)


def name_machine(check: Check, seen: Mapping) -> None:
    """Say what the GPU and its driver are, and what renders."""
    with suppress(RunError):
        gpus = machine.gpus()
        check.found["driver"] = [gpu._asdict() for gpu in gpus]
        check.workers = _room(*gpus[:1])
    drivers = [gpu["driver"] for gpu in check.found.get("driver", [])] or ["unknown"]
    packages = {}
    for name in ("nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12", "nvidia-nccl-cu12"):
        with suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    capability = "{}.{}".format(*seen["capability"])
    text = f"{', '.join(seen['gpus'])}, compute capability {capability}, driver {drivers[0]}"
    check.add("machine", "GPU", "OK", text, {**seen, "packages": packages})
    text = f"{seen['tensorflow']}, built for CUDA {seen['cuda']} and cuDNN {seen['cudnn']}"
    text += "".join(f", {name} {version}" for name, version in packages.items())
    check.add("machine", "TensorFlow", "OK", text)
    no, xla = "" if tuple(seen["capability"]) >= AMPERE else "no ", "on" if seen["xla"] else "off"
    text = f"{seen['precision']}, since there is {no}bfloat16 at {capability}; XLA {xla}"
    check.add("machine", "--precision auto", "OK", text)
    if frames := check.run("machine", "renderer", lambda limit: try_environment(load())):
        text = f"{frames.backend}, {frames.renderer}, {frames.milliseconds:.1f} ms an agent step"
        text += f", MUJOCO_EGL_DEVICE_ID {os.environ.get('MUJOCO_EGL_DEVICE_ID', 'not set')}"
        status = "FAIL" if frames.error or frames.in_software else "OK"
        text = frames.error or text + "; not the GPU: see `run.py doctor`" * frames.in_software
        check.add("machine", "renderer", status, text, frames._asdict())


def agree(
    check: Check, words: list[str], reference: str, device: str, precision: str, xla: str
) -> None:
    """Hold a device's first update against the plain one of `reference`."""
    plain, other = [[reference], PLAIN], [[device], ["--precision", precision, "--xla", xla]]
    what = f"{precision}{_xla(xla)}"
    if compare(check, "agreement", what, BOUNDS[precision], words, plain, other):
        check.agreed.add((precision, xla))


def compare(
    check: Check, part: str, what: str, bound: float, words: list[str], reference: list, other: list
) -> bool:
    """Add a line on how far two updates are apart; return whether that is within a bound."""
    found = check.run(part, what, _child("compare_updates", check.folder, words, reference, other))
    if not found:
        return False
    far = {kind: max(found[kind].items(), key=lambda item: item[1]) for kind in found}
    text = ", ".join(f"{kind} within {value:.1e} ({name})" for kind, (name, value) in far.items())
    agrees = all(value <= bound for _, value in far.values())
    text += "" if agrees else f", more than {bound:g}"
    check.add(part, what, "OK" if agrees else "FAIL", text, found)
    return agrees


def time_step(check: Check, size: str, mode: Mode, xla: str) -> None:
    """Time training steps in a number format, plain or compiled."""
    what = f"{size} {mode.name}{_xla(xla)}"
    line = [*SIZES[size], "--precision", mode.precision, "--xla", xla]
    found = check.run("step", what, _child("time_steps", check.folder, line, mode.tf32))
    if found:
        text = "{step:.1f} ms, the first after {first_step_s:.0f} s, {memory}"
        text += "{flops_share:.0%} of the speed of a product ({matmul_gflops:,.0f} GFLOP/s)"
        memory = found.get("peak_gpu_mb")
        memory = f"{memory:,.0f} MB of the GPU, " if memory else ""
        step = 1000 * found["step_s_median"]
        check.add("step", what, "OK", text.format(step=step, memory=memory, **found), found)
        if size == SIZE:
            check.steps[mode, xla] = found


def choose(check: Check) -> None:
    """Add lines on the fastest step that agrees with the CPU's: its flags, where its time goes,
    and with what a run takes besides, how long a whole run is.
    """
    tf32 = any(mode.tf32 and mode.precision == "float32" for mode, _ in check.steps)
    fits = {
        (mode, xla): step
        for (mode, xla), step in check.steps.items()
        # Where there is TF32, --precision float32 computes with it.
        if (mode.precision, xla) in check.agreed and not (tf32 and mode.name == "float32")
    }
    if not fits:
        check.add("flags", "for training", "FAIL", "no step was timed that agrees with the CPU's")
        return
    mode, xla = min(fits, key=lambda each: fits[each]["step_s_median"])
    step = fits[mode, xla]
    check.found["flags"] = f"--precision {mode.precision} --xla {xla}"
    check.add("flags", "for training", "OK", check.found["flags"])
    for line in step["profile"]:
        check.add("profile", "an update", "OK", line)
    if "profile_error" in step:
        check.add("profile", "an update", "FAIL", step["profile_error"])
    if run := check.run_alone:
        besides = (1 - run["share_train"]) / run["env_steps_per_s"]
        updates = RUN["train.updates"] / RUN["train.every"]  # to an environment step
        hours = 1e6 * (besides + updates * step["step_s_median"]) / 3600
        check.add("hours", "1M environment steps", "OK", f"{hours:.1f}", {"hours_for_1m": hours})


def overflow(check: Check, words: list[str], device: str, xla: str) -> None:
    """Have an update overflow in float16 on a device, plain or compiled."""
    what = f"float16{_xla(xla)}"
    child = _child("provoke_overflow", check.folder, [*words, "--xla", xla], device)
    if found := check.run("overflow", what, child):
        text = "skipped, loss scale {scale:.2g} -> {scale_after:.2g}; the next update is made"
        check.add("overflow", what, "OK", text.format(**found), found)


def play(check: Check, variant: str) -> dict | None:
    """Try a short run from pixels, stopped and resumed; return what `try_run` found, if it did.

    Without XLA, which would compile twice.
    """
    line = [f"--variant={variant}", *SIZES[SIZE], *(f"--{key}={RUN[key]}" for key in RUN)]
    found = check.run("run", variant, lambda limit: try_run([*line, "--xla=false"], limit))
    if found:
        text = "stopped and resumed; {env_steps_per_s:.1f} environment steps/s, of the time "
        text += "{share_train:.0%} training, {share_render:.0%} rendering, {share_other:.0%} the "
        text += "rest"
        check.add("run", variant, "OK", text.format(**found), found)
    return found


def _room(gpu: machine.Gpu | None = None) -> int:
    """Return how many trials a GPU and the processor have room for, beside one another."""
    size = gpu.memory.split()[0] if gpu else ""
    memory = int(size) / 1000 if size.isdecimal() else 0  # of MiB; a part of a GPU tells none
    return int(max(1, min(machine.cores()[0] // CORES, memory // MEMORY)))


def _child(trial: str, *arguments: object) -> Callable[[float], object]:
    return lambda limit: in_process(trial, limit, *arguments)


def _xla(setting: str) -> str:
    return ", XLA" if setting == "true" else ""


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser(
        "gpu-check", "Tell whether this program works on this GPU, and how fast.", "--minutes 15"
    )
    add = parser.add_argument
    add("--minutes", type=whole(1), default=15, help="for all trials together (15)")
    add("--outdir", type=as_path, default=Path("gpu-check"), help=f"where {FILE} goes (gpu-check)")
    add("--json", action="store_true", help="print one JSON object instead of lines")
    return parser.parse(arguments)
