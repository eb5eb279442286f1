"""What makes a run: its parts and counters, built anew or as its last checkpoint holds them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dreamer_bird.config import Config
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import CheckpointError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.collector import Collector, OverlappingCollector
from dreamer_bird.training.diagnostics import Diagnostics
from dreamer_bird.training.distributed.team import Team
from dreamer_bird.training.logger import Logger
from dreamer_bird.training.replay import Replay
from dreamer_bird.training.reporter import Reporter
from dreamer_bird.training.resources import introduction
from dreamer_bird.training.watchdog import Streak
from dreamer_bird.training.writers import open_writers
from dreamer_bird.utils.files import Arrays, ReadError
from dreamer_bird.utils.timer import Stopwatch

# What a checkpoint holds besides what `write_checkpoint` names: attributes of a run, settings, and
# prefixes of the names of arrays.
_COUNTERS = (
    *("step", "episodes", "updates", "prefilled"),
    *("next_eval", "next_save", "evaluated_step", "saved_step"),
)
_IDENTITY = ("variant", "task", "precision")
_HISTORY, _COPIED = "history/", "copied/"


class ResumableRun:
    """The parts and counters of a run.

    All randomness is a function of the seed and of these counters, so that restoring them and the
    weights restores the run.
    """

    def __init__(
        self,
        config: Config,
        logdir: Path,
        team: Team,
        envs: Sequence[EnvWorker],
        eval_env: EnvWorker,
        check: Callable[[], None],
    ):
        """Build everything, and restore the last checkpoint if there is one.

        `check` is called between agent steps and between updates, and may raise Stopped.
        """
        self.config, self.logdir, self.team = config, logdir, team
        self.envs, self.eval_env, self.check = envs, eval_env, check
        self.spec = eval_env.spec
        self.step = self.episodes = self.updates = 0
        self.prefilled: int | None = None  # step at which the episodes of random actions ended
        self.next_eval, self.next_save = 0, config.train.save_every
        self.evaluated_step = self.saved_step = 0
        self.bad_updates = Streak("updates", config.train.max_skipped)
        self.history: list[Mapping] = []  # metrics of the updates of the unfinished block
        self.watch = Stopwatch()
        episodes, length = logdir / "episodes", config.replay.length
        capacity = config.replay.capacity and config.replay.capacity // config.env.action_repeat
        self.replay = Replay(episodes, capacity, length, self.spec.observation)
        self.agent = team.build_agent(config, self.spec)
        collector = OverlappingCollector if config.train.overlap else Collector
        self.collector = collector(config, self.agent, envs, check, self.watch)
        evaluator = Collector(config, self.agent, [eval_env], check, Stopwatch())
        self.diagnostics = Diagnostics(config, self.agent, self.replay, evaluator)
        metrics_size = self._restore()
        team.share_weights(self.agent)
        writers = open_writers(config, logdir)
        self.logger = Logger(logdir, config.steps, self.step, metrics_size, writers)
        self.reporter = Reporter(self.logger, config, self.step)
        self._introduce()
        if metrics_size is None:
            self.write_checkpoint()  # so that there is one for the log to be cut back to

    def write_checkpoint(self) -> None:
        """Write weights, optimizers, counters, and how much of the logs belongs to them.

        `next_eval` and `next_save` stay: what is due is due when the run is resumed.
        """
        folder = self.logdir / "checkpoints"
        with self.watch("log"):
            arrays = {name: v.numpy() for name, v in self.agent.named_variables().items()}
            copied = self.collector.copied_weights
            arrays |= {f"{_COPIED}{name}": v.numpy() for name, v in copied.items()}
            arrays |= {f"{_HISTORY}{key}": column for key, column in self.history_columns().items()}
            header = {name: getattr(self, name) for name in _COUNTERS}
            header["bad_updates"] = self.bad_updates.to_save()
            header["collector"] = self.collector.to_save()
            header["evaluator"] = self.diagnostics.collector.to_save()
            header["copied"] = self.collector.copied_for
            header |= {"replay": self.replay.names, "metrics_size": self.logger.sync()}
            header |= {name: self.config[name] for name in _IDENTITY} | {"spec": self.spec}
            checkpoint.save(folder, self.step, arrays, header, self.config.train.keep)
            # An older checkpoint may name episodes that have left the replay since.
            try:
                self.replay.remove_files(but=checkpoint.named_episodes(folder))
            except ReadError as error:
                warnings.warn(f"{error}; the episodes that it names stay", stacklevel=2)

    def history_columns(self) -> Arrays:
        """Return the metrics of the unfinished block of updates, `[N]` each."""
        keys = self.history[0] if self.history else {}
        # Stacked where they are, so that a GPU is asked once for each.
        return {key: tf.stack([row[key] for row in self.history]).numpy() for key in keys}

    def _restore(self) -> int | None:
        """Take what the last checkpoint holds; return the size of metrics.jsonl that it knows."""
        found = checkpoint.load_latest(self.logdir / "checkpoints")
        if found is None:
            return None
        arrays, header = found
        for name in ("variant", "task"):
            if header[name] != self.config[name]:
                raise CheckpointError(
                    f"the checkpoint in {self.logdir} is of {name} {header[name]}, "
                    f"not {self.config[name]}"
                )
        history, copied = (_pop_all(arrays, prefix) for prefix in (_HISTORY, _COPIED))
        rows = zip(*history.values(), strict=True)
        self.history = [dict(zip(history, row, strict=True)) for row in rows]
        # Each precision starts from a loss scale of its own.
        self.agent.assign(arrays, loss_scale=header["precision"] == self.config.precision)
        for name in _COUNTERS:
            setattr(self, name, header[name])
        self.bad_updates.restore(header["bad_updates"])
        self.collector.restore(header["collector"])
        self.collector.restore_copy(copied, header["copied"])
        self.diagnostics.collector.restore(header["evaluator"])
        train = self.config.train  # which may ask for evaluations and checkpoints earlier now
        self.next_eval = min(self.next_eval, next_multiple(self.step, train.eval_every))
        self.next_save = min(self.next_save, next_multiple(self.step, train.save_every))
        self.replay.load(header["replay"])
        return header["metrics_size"]

    def _introduce(self) -> None:
        saved = *self.agent.named_variables().values(), *self.collector.copied_weights.values()
        weights = sum(v.shape.num_elements() * v.dtype.size for v in saved)
        spaces = self.eval_env.facts.observation_space.values()
        frame = sum(int(np.prod(space.shape)) * space.dtype.itemsize for space in spaces)
        for line in introduction(self.config, self.logdir, frame, weights):
            self.logger.say(line)
        for note in self.eval_env.facts.notes:
            self.logger.say(f"note: {note}")
        if self.step:
            self.logger.say(f"resumed at step {self.step:,}")


def next_multiple(step: int, every: int) -> int:
    """Return the first multiple of `every` after a step."""
    return (step // every + 1) * every


def _pop_all(arrays: Arrays, prefix: str) -> Arrays:
    """Remove the arrays whose names start with `prefix`; return them without it."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}
