"""Training: Algorithm 1 of the BIRD paper, with evaluation, logs and checkpoints around it."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import tensorflow as tf

from dreamer_bird.agent.flops import flops_per_step
from dreamer_bird.agent.precision import resolve_precision
from dreamer_bird.config import Config
from dreamer_bird.envs import may_terminate
from dreamer_bird.envs.worker import EnvWorker, WorkerError
from dreamer_bird.errors import CheckpointError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.collector import Collector
from dreamer_bird.training.distributed.hosts import Hosts
from dreamer_bird.training.distributed.team import FINISHED, STOPPED, LostHostError, Team, gathered
from dreamer_bird.training.evaluator import Evaluator
from dreamer_bird.training.logdir import claim_logdir
from dreamer_bird.training.logger import Logger, Reporter
from dreamer_bird.training.replay import Replay, prefetched
from dreamer_bird.training.resources import introduction
from dreamer_bird.training.watchdog import Streak, culprit
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.signals import Stopped, stopping
from dreamer_bird.utils.tensorflow import use_threads
from dreamer_bird.utils.timer import Stopwatch

FOLLOWERS_GRACE = 3600.0  # seconds; a host that only computes has nothing to save, and waits


def train(config: Config, hosts: Hosts, envs: Sequence[EnvWorker], eval_env: EnvWorker) -> None:
    """Train until `config.steps`, from the last checkpoint in the logdir if there is one.

    `envs` are for training episodes, one in each at a time, and `eval_env` is for evaluations. A
    host that is not the chief needs the latter alone, for its spec, and leaves nothing behind.

    Raises RunError if training cannot go on, Stopped when a signal ended it early.
    """
    config = config.replace(precision=resolve_precision(config.precision))
    with ExitStack() as stack:
        use_threads(config.threads, flops_per_step(config, eval_env.spec))
        # Before `stopping`: TensorFlow sets a handler of SIGTERM of its own among several hosts.
        team = stack.enter_context(gathered(config, hosts))
        eval_env.reset(0)  # fails before anything is created, if it does
        if not hosts.is_chief:
            eval_env.close()
            check = stack.enter_context(stopping(grace=FOLLOWERS_GRACE))
            team.follow(config, eval_env.spec, check)
            return
        check = stack.enter_context(stopping())
        logdir = stack.enter_context(claim_logdir(config))
        run = Run(config, logdir, team, envs, eval_env, check)
        stack.enter_context(run.logger)
        stack.callback(run.collector.close)
        try:
            while stage := run.next_stage():
                stage()
        except (Stopped, LostHostError, WorkerError):  # which attempts have failed is kept too
            run.write_checkpoint()
            team.shutdown(STOPPED)
            raise
        team.shutdown(FINISHED)
        run.logger.say(f"finished at step {run.step:,}: {logdir}")


class Run:
    """One run: its parts, its counters, and the stages of Algorithm 1.

    All randomness is a function of the seed and of these counters, so that restoring them and the
    weights restores the run. A stage changes them when it is complete, so that a run may stop
    within any of them; updates alone are kept one by one.
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
        self.step = self.episodes = self.updates = self.saved_step = 0
        self.prefilled: int | None = None  # step at which the episodes of random actions ended
        self.evaluated_step = 0
        self.next_eval, self.next_save = 0, config.train.save_every
        self.bad_updates = Streak("updates", config.train.max_skipped)
        self.history: list[dict[str, float]] = []  # metrics of the block of updates under way
        self.watch = Stopwatch()
        repeat, capacity = config.env.action_repeat, config.replay.capacity
        capacity = capacity and capacity // repeat
        length, observations = config.replay.length, self.spec.observation
        self.replay = Replay(logdir / "episodes", capacity, length, observations)
        self.joins = may_terminate(config.task)  # sequences, from one episode into the next
        self.agent = team.build_agent(config, self.spec)
        self.collector = Collector(config, self.spec, self.agent, envs, check, self.watch)
        self.evaluator = Evaluator(config, self.agent, eval_env, self.replay, check)
        metrics_size = self._restore()
        team.share_weights(self.agent)
        self.logger = Logger(logdir, config.steps, self.step, metrics_size)
        self.reporter = Reporter(self.logger, config, self.step)
        self._introduce()
        if metrics_size is None:
            self.write_checkpoint()  # to which whatever is logged from now on belongs

    def next_stage(self) -> Callable[[], None] | None:
        """Return what the counters say is to be done next, None at the end of the run."""
        train, finished = self.config.train, self.step >= self.config.steps
        training = self.prefilled is not None
        blocks = (self.step - self.prefilled) // train.every + 1 if training else 0
        if self.updates < blocks * train.updates:
            return self.update
        ends = finished and self.step > self.evaluated_step
        if training and (self.step >= self.next_eval or ends):
            return self.evaluate
        if self.step >= self.next_save or (finished and self.step > self.saved_step):
            return self.save
        return None if finished else self.collect

    def collect(self) -> None:
        """Add to the replay an episode of each training environment."""
        random = self.prefilled is None
        collect = self.collector.collect_random if random else self.collector.collect
        for episode in collect(self.episodes, self._due_episodes()):
            self._add(episode)

    def _due_episodes(self) -> int:
        """Return how many to play at once, such that no more are played than one by one."""
        config, train, left = self.config, self.config.train, 1
        target = config.steps if self.prefilled is not None else train.prefill_steps
        left = math.ceil((target - self.step) / config.env.time_limit)
        if self.prefilled is None:
            left = max(left, train.prefill - self.episodes, 1)
        return min(len(self.envs), left)

    def _add(self, episode: Arrays) -> None:
        length = len(episode["reward"]) - 1
        env_steps, random = int(episode.pop("env_step")[-1]), self.prefilled is None
        with self.watch("replay"):
            self.replay.add(f"{self.episodes + 1:06d}-{length}", episode)
        self.episodes += 1
        self.step += env_steps
        train = self.config.train
        enough = self.joins and self.replay.steps >= self.config.replay.length
        enough |= self.replay.holds_a_sequence
        enough &= self.episodes >= train.prefill and self.step >= train.prefill_steps
        if random and enough:
            self.prefilled = self.step
        with self.watch("log"):
            self.reporter.episode("train", self.step, self.episodes, episode, random)

    def update(self) -> None:
        """Train for a block of updates, and log their means."""
        self.collector.play_ahead(self.episodes, self._due_episodes())
        self._train()
        with self.watch("train"):
            history = self._history()
        self.history = []
        self._log_updates(history)
        for number, skipped in enumerate(history["skipped_updates"]):
            metrics = {key: column[number] for key, column in history.items()}
            self.bad_updates.count(culprit(metrics) if skipped else None)

    def _train(self) -> None:
        """Make the updates of a block that are missing."""
        end = self.updates + self.config.train.updates - len(self.history)
        with closing(prefetched(self._draw, range(self.updates, end))) as batches:
            while self.updates < end:
                self.check()
                with self.watch("replay"):
                    batch = next(batches)
                with self.watch("train"):
                    self.team.announce_update()
                    seed = seeds.stateless(self.config.seed, "train", self.updates)
                    self.history.append(self.agent.train_step(batch, seed))
                self.updates += 1

    def _draw(self, update: int) -> dict[str, tf.Tensor]:
        """Return the batch of an update, on the device."""
        rng = seeds.generator(self.config.seed, "replay", update)
        draw = self.replay.sample_joined if self.joins else self.replay.sample
        batch = draw(self.config.replay.batch, rng)
        return {key: tf.convert_to_tensor(value) for key, value in batch.items()}

    def _log_updates(self, history: Arrays) -> None:
        players = self.collector.player, self.evaluator.player
        times = {f"seconds/{part}": time for part, time in self.watch.flush().items()}
        ahead = self.collector.watch_ahead.flush()
        times |= {f"seconds_beside/{part}": time for part, time in ahead.items()}
        with self.watch("log"):
            nonfinite = sum(player.nonfinite_actions for player in players)
            self.reporter.block(self.step, history, nonfinite, times)
        for player in players:
            player.nonfinite_actions = 0

    def evaluate(self) -> None:
        """Play an episode with the mode of the policy, and predict some sequences open-loop."""
        with self.watch("evaluate"):
            episode = self.evaluator.evaluate(self.step, self.episodes, self.logger)
        self.evaluated_step = self.step
        self.next_eval = _next_multiple(self.step, self.config.train.eval_every)
        with self.watch("log"):
            self.reporter.episode("test", self.step, self.episodes, episode)

    def save(self) -> None:
        """Write the checkpoint that is due."""
        self.next_save = _next_multiple(self.step, self.config.train.save_every)
        self.saved_step = self.step
        self.write_checkpoint()

    def write_checkpoint(self) -> None:
        """Write weights, optimizers, counters, and what of the logs belongs to them.

        What is due stays due: a run stopped among its last updates saves them when it goes on.
        """
        folder = self.logdir / "checkpoints"
        with self.watch("log"):
            arrays = {name: v.numpy() for name, v in self.agent.named_variables().items()}
            copied = self.collector.copied_weights
            arrays |= {f"{_COPIED}{name}": v.numpy() for name, v in copied.items()}
            arrays |= {f"{_HISTORY}{key}": column for key, column in self._history().items()}
            header = {name: getattr(self, name) for name in _COUNTERS}
            header["bad_updates"] = self.bad_updates.state
            header["player"] = self.collector.player.state
            header["evaluator"] = self.evaluator.player.state
            header["copied"] = self.collector.copied_for
            header |= {"replay": self.replay.names, "metrics_size": self.logger.sync()}
            header |= {name: self.config[name] for name in _IDENTITY} | {"spec": self.spec}
            checkpoint.save(folder, self.step, arrays, header, self.config.train.keep)
            # An older checkpoint may name episodes that have left the replay since.
            self.replay.remove_files(but=checkpoint.named_episodes(folder))

    def _restore(self) -> int | None:
        """Take over the last checkpoint; return the size of metrics.jsonl that belongs to it."""
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
        self.bad_updates.state = header["bad_updates"]
        self.collector.player.state = header["player"]
        self.evaluator.player.state = header["evaluator"]
        self.collector.restore(copied, header["copied"])
        train = self.config.train  # in which evaluations and checkpoints may be due earlier now
        self.next_eval = min(self.next_eval, _next_multiple(self.step, train.eval_every))
        self.next_save = min(self.next_save, _next_multiple(self.step, train.save_every))
        self.replay.load(header["replay"])
        return header["metrics_size"]

    def _history(self) -> Arrays:
        keys = self.history[0] if self.history else {}
        return {key: np.array([metrics[key] for metrics in self.history]) for key in keys}

    def _introduce(self) -> None:
        saved = *self.agent.named_variables().values(), *self.collector.copied_weights.values()
        weights = sum(v.shape.num_elements() * v.dtype.size for v in saved)
        spaces = self.eval_env.observation_space.values()
        frame = sum(int(np.prod(space.shape)) * space.dtype.itemsize for space in spaces)
        lines = introduction(self.config, self.logdir, frame, weights)
        for line in lines:
            self.logger.say(line)
        if self.step:
            self.logger.say(f"resumed at step {self.step:,}")


_COUNTERS = (
    *("step", "episodes", "updates", "prefilled"),
    *("next_eval", "next_save", "evaluated_step", "saved_step"),
)
_IDENTITY = ("variant", "task", "precision")
_HISTORY, _COPIED = "history/", "copied/"


def _pop_all(arrays: Arrays, prefix: str) -> Arrays:
    """Take out the arrays whose names begin so, and return them under the rest of their names."""
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays.pop(name) for name in names}


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
