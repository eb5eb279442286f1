"""Which runs a sweep consists of, and what has become of each."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.config import Config, load
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training.checkpoint import load_header, newest_first
from dreamer_bird.training.logdir import check_logdir

WAITING, RUNNING, RETRYING = "waiting", "running", "retrying"
DONE, FAILED, STOPPED = "done", "failed", "stopped"
STATES = (DONE, RUNNING, RETRYING, WAITING, STOPPED, FAILED)


@dataclass
class Run:
    """One run: its settings, the flags with which `run.py` trains it, and its state."""

    config: Config
    flags: list[str]
    state: str = WAITING
    reason: str = ""  # for which it failed, or is tried again
    failures: int = 0

    @property
    def logdir(self) -> Path:
        """The run's own folder."""
        return Path(self.config.logdir)

    @property
    def name(self) -> str:
        """Task, variant and seed, as the folders are called."""
        return "/".join(self.logdir.parts[-3:])

    @property
    def log(self) -> Path:
        """The file for what the training command prints, beside the run's folder."""
        return self.logdir.with_name(f"{self.logdir.name}.log")

    def is_complete(self) -> bool:
        """Return whether the newest readable checkpoint is that of the run's end.

        The number of steps alone does not tell: a run may have stopped among its last updates.
        """
        for path in newest_first(self.logdir / "checkpoints"):
            with suppress(RunError):
                return load_header(path)["saved_step"] >= self.config.steps
        return False


def make_plan(
    tasks: Sequence[str],
    variants: Sequence[str],
    seeds: Iterable[int],
    settings: Sequence[str],
    logdir: Path,
) -> list[Run]:
    """Return the runs, seed by seed, so that what is done first can be compared.

    `settings` are flags of training. Raises ConfigError for what no run could have, and for a
    folder that holds something else; creates nothing.
    """
    runs: dict[Path, Run] = {}
    for run in _runs(tasks, variants, seeds, settings, logdir):
        if run.logdir in runs:
            raise ConfigError(f"--tasks, --variants, --seeds: {run.name} would be there twice")
        check_logdir(run.config)
        runs[run.logdir] = run
        if run.is_complete():
            run.state = DONE
    return list(runs.values())


def _runs(
    tasks: Sequence[str],
    variants: Sequence[str],
    seeds: Iterable[int],
    settings: Sequence[str],
    logdir: Path,
) -> Iterator[Run]:
    values, presets = parse_flags(settings)
    for seed, task, variant in product(seeds, tasks, variants):
        chosen = {"task": task, "variant": variant, "seed": seed}
        config = load(values | chosen, presets)
        folder = Path(config.logdir).relative_to("logdir")  # as a run chooses it by itself
        chosen["logdir"] = str(logdir / folder)
        words = [str(word) for key, value in chosen.items() for word in (f"--{key}", value)]
        yield Run(config.replace(logdir=chosen["logdir"]), [*settings, *words])
