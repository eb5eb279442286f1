"""The command `bench`: how fast this machine trains, and where the time goes."""

import json
import os
import resource
import tempfile
import time
import timeit
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from dreamer_bird.agent.flops import flops_per_step
from dreamer_bird.commands.arguments import Parser, check_importable, parse_flags, whole
from dreamer_bird.commands.timing import spec_of, time_actions, time_steps, time_updates
from dreamer_bird.config import Config, load
from dreamer_bird.envs.tasks import EPISODE
from dreamer_bird.errors import RunError
from dreamer_bird.training.driver import start_worker
from dreamer_bird.utils.machine import peak_rss
from dreamer_bird.utils.processes import failure, run_python
from dreamer_bird.utils.signals import unwinding
from dreamer_bird.utils.tensorflow import first_device, quietly, use_threads, uses_onednn

PROGRAM = "import sys; from dreamer_bird.cli import main; sys.exit(main())"
BLOCKS = 10  # of updates, in a whole run
FRAMES = 100  # rendered alone
PRODUCTS = {"CPU:0": 2048, "GPU:0": 8192}  # rows and columns of the matrices multiplied


def main(arguments: list[str]) -> int:
    """Measure what is asked for and print a table, or with --json one object as the last line."""
    flags, settings = _parse(arguments)
    config = load(*parse_flags(settings))
    check_importable(config)
    with quietly():
        from dreamer_bird.agent.precision import resolve_precision
    use_threads(config.threads, flops_per_step(config, spec_of(config)))
    config = config.replace(precision=resolve_precision(config.precision))
    figures = {"precision": config.precision, "onednn": uses_onednn()}
    if flags.part in ("step", "all"):
        updates = time_updates(config)
        figures |= first_step(updates) | next_steps(config, updates, flags.steps)
    if flags.part in ("act", "all"):
        seconds = list(islice(time_actions(config), 1, flags.steps + 1))  # the first is traced
        figures["policy_ms"] = 1000 * float(np.median(seconds))
    if flags.part in ("env", "all"):
        figures |= measure_env(config)
    if flags.part in ("run", "all"):
        figures |= measure_run(config)
    if flags.json:
        print(json.dumps(figures, allow_nan=False))
    else:
        _show(figures)
    return 0


def first_step(updates: Iterator[float]) -> dict[str, float]:
    """Make the first update of `time_updates`, which is traced and may be compiled."""
    next(updates)
    return {"first_step_s": _since_the_process_began()}


def next_steps(config: Config, updates: Iterator[float], steps: int) -> dict[str, float]:
    """Time updates that follow the first one, and this machine's largest matrix product."""
    import tensorflow as tf

    seconds, memory = list(islice(updates, steps)), {}
    if first_device() == "GPU:0":  # before the product, which takes more
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        memory["peak_gpu_mb"] = peak / 1e6
    operations, fastest = flops_per_step(config, spec_of(config)), _matmul_gflops(config.precision)
    return memory | {
        "step_s_median": float(np.median(seconds)),
        "step_s_min": min(seconds),
        "flops_per_step": operations,
        "matmul_gflops": fastest,
        "flops_share": operations / np.median(seconds) / fastest / 1e9,
        "peak_rss_mb": peak_rss(resource.RUSAGE_SELF) / 2**20,
    }


def measure_env(config: Config) -> dict[str, float]:
    """Time agent steps of the environment alone: physics, rendering and the worker's pipe."""
    with start_worker(config, "bench") as env:
        seconds = [*islice(time_steps(env), 1, FRAMES + 1)]
    return {"render_ms": 1000 * float(np.median(seconds))}


def measure_run(config: Config) -> dict[str, float]:
    """Time a whole run in a process of its own, from the end of its second block of updates on.

    Its episodes are cut to the steps between blocks, or else to a sequence, so that a game that
    lasts for a hundred thousand frames is no reason to wait.
    """
    every, repeat = config.train.every, config.env.action_repeat
    limit = min(config.env.time_limit or EPISODE, max(every, config.replay.length * repeat))
    flags = config.flatten() | {"env.time_limit": limit, "train.save_every": every}
    flags |= {"train.prefill_steps": 0, "actor.learning_starts": 0}
    # With several environments their episodes, and so the blocks, come together: twice at least.
    learning = max(every * BLOCKS, 2 * limit * config.envs)
    flags["steps"] = limit * (config.train.prefill + 1) + learning
    return run_figures(config, _run(flags)[1:])


def run_figures(config: Config, logged: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return how fast a run went on after the first of the blocks of updates that it logged."""
    start = logged[0]["step"]  # what other blocks at that step took belongs to the steps before
    blocks = [block for block in logged if block["step"] > start]
    repeat = config.env.action_repeat
    env_steps = blocks[-1]["step"] - start
    parts = Counter()
    for block in blocks:
        parts.update({key: block[key] for key in block if key.startswith("seconds")})
    # Not by "fps", which of several blocks at one step the first alone has.
    wall = sum(value for key, value in parts.items() if key.startswith("seconds/"))
    train = parts["seconds/train"]
    render = parts["seconds/render"] + parts["seconds/wait"]
    act = parts["seconds/act"] + parts["seconds_beside/act"]
    return {
        "env_steps_per_s": env_steps / wall,
        "act_ms": 1000 * act * repeat / env_steps,
        "replay_ms": 1000 * parts["seconds/replay"] / (len(blocks) * config.train.updates),
        "share_train": train / wall,
        "share_render": render / wall,
        "share_other": 1 - (train + render) / wall,
        "peak_rss_mb": peak_rss(resource.RUSAGE_CHILDREN) / 2**20,
    }


def _run(flags: dict[str, object]) -> list[dict[str, float]]:
    """Return the logged lines of the update blocks of a run that leaves nothing behind."""
    with unwinding(), tempfile.TemporaryDirectory() as folder:
        flags = flags | {"logdir": f"{folder}/run"}
        words = [f"--{key}={'null' if value is None else value}" for key, value in flags.items()]
        done = run_python(PROGRAM, *words)
        if done.returncode:
            raise RunError(f"the run that was to be timed failed: {failure(done)}")
        return logged_blocks(Path(folder, "run"))


def logged_blocks(logdir: Path) -> list[dict[str, float]]:
    """Return the lines of a run's blocks of updates."""
    lines = map(json.loads, Path(logdir, "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "model_loss" in line]


_MEANINGS = {
    "precision": "of matrix products and convolutions",
    "onednn": "whether TensorFlow computes with oneDNN on a CPU",
    "step_s_median": "seconds of a training step, median",
    "step_s_min": "the same, fastest",
    "first_step_s": "seconds from the start of this process to the end of its first training step",
    "flops_per_step": "operations of a training step",
    "peak_gpu_mb": "MB of the GPU's memory that training steps take at most",
    "matmul_gflops": "GFLOP/s of a product of matrices so large that nothing is faster",
    "flops_share": "share of that speed which the training step reaches",
    "policy_ms": "milliseconds of the policy alone for an agent step, of all environments at once",
    "render_ms": "milliseconds of an agent step of the environment: physics, rendering, worker",
    "env_steps_per_s": "environment steps per second of a whole run",
    "act_ms": "milliseconds of acting for an agent step of that run",
    "replay_ms": "milliseconds that a training step waits for its batch, episodes written included",
    "share_train": "share of the run's time that is training",
    "share_render": "share that is environment and rendering, or waiting for what plays ahead",
    "share_other": "share that is anything else: acting, replay, logs, evaluation, checkpoints",
    "peak_rss_mb": "MB of memory at most, of the last part measured",
}


def _parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    parser = Parser(
        "bench",
        "Measure how fast this machine trains with any preset and settings.",
        "--configs cpu",
    )
    add = parser.add_argument
    parts = "step", "act", "env", "run", "all"
    add("--part", choices=parts, default="all", help="what to measure (all)")
    add("--steps", type=whole(1, 1000), default=5, help="training steps and actions to time (5)")
    add("--json", action="store_true", help="print one JSON object")
    parser.epilog = "Presets and settings as for training: --configs cpu --precision float32 ..."
    return parser.parse_beside_settings(arguments)


def _since_the_process_began() -> float:
    """Return seconds; of Linux alone, elsewhere those since this module was imported."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return time.monotonic() - _IMPORTED
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])  # after the system's start
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


_IMPORTED = time.monotonic()


def _matmul_gflops(precision: str) -> float:
    import tensorflow as tf

    size = PRODUCTS[first_device()]
    one, other = tf.cast(tf.random.stateless_normal((2, size, size), (0, 0)), precision)
    # Two beside each other, since one alone may have but one of the threads (`use_threads`).
    product = tf.function(lambda: tf.reduce_sum(one @ other) + tf.reduce_sum(other @ one))
    product()
    seconds = min(timeit.repeat(lambda: product().numpy(), repeat=8, number=1))
    return 4 * size**3 / seconds / 1e9


def _show(figures: dict[str, float]) -> None:
    table = Table(box=None, show_header=False)
    table.add_column(justify="right")
    for name, value in figures.items():
        shown = f"{value:,.0f}" if name == "flops_per_step" else value
        shown = f"{shown:.3g}" if isinstance(shown, float) else str(shown)
        table.add_row(shown, name, _MEANINGS[name])
    Console(highlight=False).print(table)
