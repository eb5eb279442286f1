"""The command: checks everything, then prints the plan or has the runs trained."""

import argparse
import warnings
from argparse import Namespace

from dreamer_bird.commands.arguments import Parser, as_path, whole
from dreamer_bird.commands.sweep.board import Board
from dreamer_bird.commands.sweep.launcher import ENDING, Launcher
from dreamer_bird.commands.sweep.machines import (
    at_once,
    connected,
    machines_of,
    share_of,
    this_machine,
)
from dreamer_bird.commands.sweep.plan import forecast, make_plan
from dreamer_bird.config import Rule
from dreamer_bird.errors import ConfigError
from dreamer_bird.utils.signals import stopping

MOST_SEEDS = 10_000


def main(arguments: list[str]) -> int:
    """Train all runs that are not complete; return 1 if one failed or was stopped."""
    flags, settings = _parse(arguments)
    runs = make_plan(flags.tasks, flags.variants, flags.seeds, settings, flags.logdir)
    todo = [run for run in runs if run.state == "waiting"]
    this, board = this_machine(), Board(runs)
    asked = {"runs": len(todo), "devices": runs[0].config.devices}
    asked |= {"cpus": flags.cpus_per_run, "gpus": flags.gpus_per_run}
    share = share_of([this], **asked)
    if not flags.address and share.cpus > this.cpus:
        raise ConfigError(f"--cpus-per-run {share.cpus}: this machine has {this.cpus}")
    if not flags.address and share.gpus > this.gpus:
        raise ConfigError(f"--gpus-per-run {share.gpus:g}: this machine has {this.gpus}")
    if flags.dry_run or not todo:
        board.summarize()
    if flags.dry_run:
        beside = None if flags.address else min(at_once([this], share), len(todo))
        if beside:
            print(f"at once: {beside}, each with {share}")
        print(*forecast(runs, beside), sep="\n")
        return 0
    if todo:
        if flags.address:
            print(f"connecting to {flags.address}", flush=True)
        # In this order: Ray sets a handler of SIGTERM of its own when it starts.
        with connected(flags.address, this) as ray, stopping(grace=2 * ENDING) as check:
            machines = machines_of(ray) if flags.address else [this]
            share = share_of(machines, **asked)
            if not at_once(machines, share):
                warnings.warn(f"no node of the cluster has {share}: waiting for one", stacklevel=2)
            with board:
                Launcher(ray, share, flags.retries, board).train(todo, check)
    return int(any(run.state != "done" for run in runs))


def _parse(arguments: list[str]) -> tuple[Namespace, list[str]]:
    """Return the values of the sweep's own flags, and the flags of training."""
    parser = Parser(
        "sweep",
        "Train tasks x variants x seeds; started again, what is missing.",
        "--tasks dmc_hopper_hop --variants dreamer,bird --seeds 0..4",
    )
    add = parser.add_argument
    add("--tasks", type=_names, required=True, help="task,task,...")
    add("--variants", type=_names, required=True, help="variant,variant,...")
    add("--seeds", type=_seeds, required=True, help="0,3,7 or 0..4, which has both ends")
    add("--logdir", type=as_path, default="logdir", help="runs land in it as task/variant/seed")
    add("--cpus-per-run", type=whole(1), help="cores of a run (an equal part of all)")
    add(
        "--gpus-per-run",
        type=_gpus,
        help="GPUs of a run, 0.5 for half a one (--devices, if there are any)",
    )
    add("--address", type=_address, help="HOST:PORT of a Ray cluster, or auto (start Ray here)")
    add("--retries", type=whole(0), default=3, help="of a run that failed (3)")
    add("--dry-run", action="store_true", help="print the plan with time, memory and disk")
    parser.epilog = "Presets and settings as for training: --configs cpu --steps 1e5 ..."
    flags, settings = parser.parse_beside_settings(arguments)
    for flag in (word.partition("=")[0] for word in settings):
        if flag in ("--task", "--variant", "--seed"):
            raise ConfigError(f"{flag}: a sweep takes {flag}s")
    return flags, settings


def _names(text: str) -> list[str]:
    names = text.split(",")
    if "" in names:
        raise argparse.ArgumentTypeError(f"{text}: must be names with a comma between")
    return names


def _seeds(text: str) -> list[int]:
    seeds = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not (first.isdecimal() and (last.isdecimal() or not dots)):
            raise argparse.ArgumentTypeError(f"{text}: must be like 0,3,7 or 0..4")
        low = int(first)
        high = int(last) if dots else low
        if high < low or high - low >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(f"{part}: must be a range like 0..4")
        seeds += range(low, high + 1)
    return seeds


def _gpus(text: str) -> float:
    try:
        number = Rule(float).convert(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None
    if (number > 1 and number != int(number)) or 0 < number < 1e-4:  # Ray counts to that
        what = "must be a part of a GPU, 0.0001 at least, or a whole number"
        raise argparse.ArgumentTypeError(f"{text}: {what}")
    return number


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    valid = host and "/" not in text and port.isdecimal() and int(port) < 2**16
    if text != "auto" and not valid:
        raise argparse.ArgumentTypeError(f"{text}: must be HOST:PORT or auto")
    return text
