"""Training: Algorithm 1 of the BIRD paper, with evaluation, logs and checkpoints around it."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

import tensorflow as tf

from dreamer_bird.agent.flops import flops_per_step
from dreamer_bird.agent.precision import resolve_precision
from dreamer_bird.agent.world_model import Metrics
from dreamer_bird.config import Config
from dreamer_bird.envs.tasks import may_terminate
from dreamer_bird.envs.worker import EnvWorker, WorkerError
from dreamer_bird.errors import ConfigError
from dreamer_bird.training.distributed.hosts import Hosts
from dreamer_bird.training.distributed.team import LostHostError, gathered
from dreamer_bird.training.logdir import claim_logdir
from dreamer_bird.training.replay import prefetched
from dreamer_bird.training.run_state import ResumableRun, next_multiple
from dreamer_bird.training.watchdog import culprit
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.signals import Stopped, stopping
from dreamer_bird.utils.tensorflow import first_device, use_threads

FOLLOWERS_GRACE = 3600.0  # seconds; followers save nothing, and wait until the chief has saved


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
        # The environment's own limit; config.yaml keeps null.
        limit = config.env.time_limit or eval_env.facts.time_limit
        config = config.replace(env={**config.env, "time_limit": limit})
        run = Run(config, logdir, team, envs, eval_env, check)
        stack.enter_context(run.logger)
        stack.callback(run.collector.close)
        stack.push(team.tell_the_end)
        try:
            learn(run)
        except (Stopped, LostHostError, WorkerError, ConfigError):
            run.write_checkpoint()  # and with it the number of failed attempts
            raise
        run.logger.say(f"finished at step {run.step:,}: {logdir}")


def learn(run: "Run") -> None:
    """Algorithm 1. Each line asks the counters, so that a resumed run goes on where it stopped."""
    while True:
        while run.updates_due:  # none while actions are random
            run.update()
        if run.evaluation_due:
            run.evaluate()
        if run.save_due:
            run.save()
        if run.finished:
            return
        run.collect()


class Run(ResumableRun):
    """One run: the stages of Algorithm 1, and when each of them is due.

    A stage changes the counters when it is complete (updates one by one), so that a run may stop
    anywhere.
    """

    @property
    def prefilling(self) -> bool:
        """Whether episodes are still of random actions."""
        return self.prefilled is None

    @property
    def finished(self) -> bool:
        """Whether `steps` is reached."""
        return self.step >= self.config.steps

    @property
    def updates_due(self) -> bool:
        """Whether a block of updates is missing, or the rest of one."""
        # Where episodes were lost others are played first, unless the run is at its end.
        if self.prefilling or not (self._can_draw or self.finished):
            return False
        blocks = (self.step - self.prefilled) // self.config.train.every + 1
        return self.updates < blocks * self.config.train.updates

    @property
    def evaluation_due(self) -> bool:
        """Whether a multiple of `train.eval_every` was passed, or the run ends."""
        last = self.finished and self.step > self.evaluated_step
        return not self.prefilling and (self.step >= self.next_eval or last)

    @property
    def save_due(self) -> bool:
        """Whether a multiple of `train.save_every` was passed, or the run ends."""
        last = self.finished and self.step > self.saved_step
        return self.step >= self.next_save or last

    def collect(self) -> None:
        """Add an episode of each training environment to the replay, at first of random actions."""
        collector = self.collector
        collect = collector.collect_random if self.prefilling else collector.collect
        for episode in collect(self.episodes, self._due_episodes()):
            self._add(episode)

    def _due_episodes(self) -> int:
        """Return how many to play at once, such that about as many are played as one by one."""
        config, train = self.config, self.config.train
        # Those of a game last for a fraction of its limit.
        usual = self.step / self.episodes if self.episodes else config.env.time_limit
        ends = train.prefill_steps, config.steps
        random, left = (math.ceil((end - self.step) / usual) for end in ends)
        if self.prefilling:
            left = min(left, max(random, train.prefill - self.episodes, 1))
        return min(len(self.envs), left)

    def _add(self, episode: Arrays) -> None:
        length, random = len(episode["reward"]) - 1, self.prefilling
        env_steps = int(episode.pop("env_step")[-1])
        with self.watch("replay"):
            self.replay.add(f"{self.episodes + 1:06d}-{length}", episode)
        self.episodes += 1
        self.step += env_steps
        if random and self._prefill_suffices():
            self.prefilled = self.step
        with self.watch("log"):
            self.reporter.episode("train", self.step, self.episodes, episode, random)

    def _prefill_suffices(self) -> bool:
        train = self.config.train
        enough = self.episodes >= train.prefill and self.step >= train.prefill_steps
        return enough and self._can_draw

    @property
    def _can_draw(self) -> bool:
        """Whether the replay holds a sequence."""
        replay = self.replay
        # Where episodes may end early, a sequence may begin in one and end in the next.
        joined = may_terminate(self.config.task) and replay.steps >= self.config.replay.length
        return joined or replay.holds_a_sequence

    def update(self) -> None:
        """Train for a block of updates, and log their means."""
        self.collector.play_ahead(self.episodes, self._due_episodes())
        self._run_updates()
        with self.watch("train"):
            history = self.history_columns()
        self.history = []
        self._log_updates(history)
        for number, skipped in enumerate(history["skipped_updates"]):
            metrics = {key: column[number] for key, column in history.items()}
            self.bad_updates.count(culprit(metrics) if skipped else None)

    def _run_updates(self) -> None:
        """Make the updates of a block that are missing."""
        end = self.updates + self.config.train.updates - len(self.history)
        with closing(prefetched(self._draw, range(self.updates, end))) as batches:
            while self.updates < end:
                self.check()
                with self.watch("replay"):
                    batch = next(batches)
                with self.watch("train"):
                    self.team.announce_update()
                    self.history.append(self._update_by(batch))
                self.updates += 1

    def _update_by(self, batch: dict[str, tf.Tensor]) -> Metrics:
        """Make an update; say how long XLA took, where it is one that was compiled."""
        seed = seeds.stateless(self.config.seed, "train", self.updates)
        traces, start = self.agent.traces, time.perf_counter()
        if self.agent.compiled and not traces:
            self.logger.say("XLA compiles the update: on a GPU that takes minutes")
        metrics = self.agent.train_step(batch, seed)
        if self.agent.compiled and self.agent.traces > traces:
            self.logger.say(f"XLA compiled the update in {time.perf_counter() - start:.1f} s")
        return metrics

    def _draw(self, update: int) -> dict[str, tf.Tensor]:
        """Return the batch of an update, on the device."""
        rng = seeds.generator(self.config.seed, "replay", update)
        draw = self.replay.sample_joined if may_terminate(self.config.task) else self.replay.sample
        batch = draw(self.config.replay.batch, rng)
        # Several devices take their parts from the host's memory.
        several = self.team.strategy.num_replicas_in_sync > 1
        with tf.device("CPU:0" if several else first_device()):
            return {key: tf.convert_to_tensor(value) for key, value in batch.items()}

    def _log_updates(self, history: Arrays) -> None:
        collectors = self.collector, self.diagnostics.collector
        times = {f"seconds/{part}": time for part, time in self.watch.flush().items()}
        ahead = self.collector.watch_ahead.flush()
        times |= {f"seconds_beside/{part}": time for part, time in ahead.items()}
        with self.watch("log"):
            nonfinite = sum(collector.nonfinite_actions for collector in collectors)
            self.reporter.block(self.step, history, nonfinite, times)
        for collector in collectors:
            collector.nonfinite_actions = 0

    def evaluate(self) -> None:
        """Play an episode with the mode of the policy, and predict some sequences open-loop."""
        with self.watch("evaluate"):
            episode = self.diagnostics.measure(self.step, self.episodes, self.logger)
        self.evaluated_step = self.step
        self.next_eval = next_multiple(self.step, self.config.train.eval_every)
        with self.watch("log"):
            self.reporter.episode("test", self.step, self.episodes, episode)

    def save(self) -> None:
        """Write the checkpoint that is due."""
        self.next_save = next_multiple(self.step, self.config.train.save_every)
        self.saved_step = self.step
        self.write_checkpoint()
