"""Training: Algorithm 1 of the BIRD paper, with evaluation, logs and checkpoints around it."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from dreamer_bird import checkpoint, seeds
from dreamer_bird.config import Config
from dreamer_bird.driver import Act
from dreamer_bird.envs import may_terminate
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import CheckpointError
from dreamer_bird.hosts import Hosts, gather
from dreamer_bird.logdir import claim_logdir
from dreamer_bird.logger import Logger
from dreamer_bird.player import Player
from dreamer_bird.precision import resolve_precision
from dreamer_bird.replay import Replay
from dreamer_bird.reporting import introduction, means
from dreamer_bird.signals import Stopped, stopping
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays
from dreamer_bird.team import FINISHED, STOPPED, LostHostError, Team
from dreamer_bird.watchdog import Streak, culprit

VIDEO_SEQUENCES = 6
VIDEO_CONTEXT = 5
FOLLOWERS_GRACE = 3600.0  # seconds; a host that only computes has nothing to save, and waits


def train(config: Config, hosts: Hosts, envs: Sequence[EnvWorker], eval_env: EnvWorker) -> None:
    """Train until `config.steps`, from the last checkpoint in the logdir if there is one.

    `envs` are for training episodes, one in each at a time, and `eval_env` is for evaluations. A
    host that is not the chief needs the latter alone, for its spec, and leaves nothing behind.

    Raises RunError if training cannot go on, Stopped when a signal ended it early.
    """
    config = config.replace(precision=resolve_precision(config.precision))
    with ExitStack() as stack:
        # Before `stopping`: TensorFlow sets a handler of SIGTERM of its own among several hosts.
        team = stack.enter_context(_gathered(config, hosts))
        eval_env.reset(0)  # fails before anything is created, if it does
        if not hosts.is_chief:
            eval_env.close()
            check = stack.enter_context(stopping(grace=FOLLOWERS_GRACE))
            team.follow(config, eval_env.spec, check)
            return
        check = stack.enter_context(stopping())
        logdir = stack.enter_context(claim_logdir(config))
        run = Run(config, logdir, team, envs, eval_env, check)
        stack.callback(run.logger.close)
        try:
            while stage := run.next_stage():
                stage()
        except (Stopped, LostHostError):
            run.write_checkpoint()
            team.dismiss(STOPPED)
            raise
        team.dismiss(FINISHED)
        run.logger.say(f"finished at step {run.step:,}: {logdir}")


@contextmanager
def _gathered(config: Config, hosts: Hosts) -> Iterator[Team]:
    """Yield the team when all hosts are there; their loss is an error of one line from then on."""
    if hosts.count > 1:
        print(f"host {hosts.number} of {hosts.count}, waiting for the others", flush=True)
        # All but the logdir, which only the chief uses.
        gather(hosts, json.dumps(config.replace(logdir=None).flatten(), sort_keys=True))
    team = Team(config.devices, hosts)
    with team.naming_the_lost():
        yield team


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
        limits = config.worker.restarts, config.train.max_skipped
        self.player = Player(self.agent, config.seed, *limits, check)
        metrics_size = self._restore()
        team.share_weights(self.agent)
        self.logger = Logger(logdir, config.steps, self.step, metrics_size)
        self.last_log = self.step, time.monotonic()
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
        if training and self.step >= self.next_eval:
            return self.evaluate
        if self.step >= self.next_save or (finished and self.step > self.saved_step):
            return self.save
        return None if finished else self.collect

    def collect(self) -> None:
        """Play an episode in each training environment, and add them to the replay."""
        numbers = range(self.episodes, self.episodes + self._due_episodes())
        if self.prefilled is None:
            act = self.player.random(self.envs[0].action_space, self.episodes)
        else:
            act = self._policy("act", training=True)
        starts = [seeds.integer(self.config.seed, "environment", number) for number in numbers]
        for episode in self.player.play(self.envs[: len(starts)], act, starts, self.watch):
            self._add(episode)

    def _due_episodes(self) -> int:
        """Return how many to play at once, such that no more are played than one by one."""
        config = self.config
        if self.prefilled is None:
            left = config.train.prefill - self.episodes
        else:
            left = math.ceil((config.steps - self.step) / config.env.time_limit)
        return min(len(self.envs), max(left, 1))

    def _add(self, episode: Arrays) -> None:
        length = len(episode["reward"]) - 1
        with self.watch("replay"):
            self.replay.add(f"{self.episodes + 1:06d}-{length}", episode)
        self.episodes += 1
        self.step += length * self.config.env.action_repeat
        enough = self.joins and self.replay.steps >= self.config.replay.length
        enough |= self.replay.holds_a_sequence
        if self.prefilled is None and self.episodes >= self.config.train.prefill and enough:
            self.prefilled = self.step
        self._log_episode("train", episode)

    def update(self) -> None:
        """Train for a block of updates, and log their means."""
        while len(self.history) < self.config.train.updates:
            self.check()
            with self.watch("replay"):
                rng = seeds.generator(self.config.seed, "replay", self.updates)
                draw = self.replay.sample_joined if self.joins else self.replay.sample
                batch = draw(self.config.replay.batch, rng)
            with self.watch("train"):
                self.team.announce_update()
                seed = seeds.stateless(self.config.seed, "train", self.updates)
                self.history.append(self.agent.train_step(batch, seed))
            self.updates += 1
        with self.watch("train"):
            history = self._history()
        self.history = []
        self._log_updates(history)
        for number, skipped in enumerate(history["skipped_updates"]):
            metrics = {key: column[number] for key, column in history.items()}
            self.bad_updates.count(culprit(metrics) if skipped else None)

    def evaluate(self) -> None:
        """Play an episode with the mode of the policy, and predict some sequences open-loop."""
        with self.watch("evaluate"):
            seed = seeds.integer(self.config.seed, "evaluation environment", self.step)
            act, films = self._policy("evaluate", training=False), self.eval_env.renders
            (episode,) = self.player.play([self.eval_env], act, [seed], Stopwatch(), frames=films)
            if films:
                self.logger.video(self.step, "evaluation", episode["frame"], save=True)
            if self.replay.holds_a_sequence:  # what is predicted ends with the episode
                self._evaluate_predictions()
        self.next_eval = _next_multiple(self.step, self.config.train.eval_every)
        self._log_episode("test", episode)

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
            arrays |= {f"{_HISTORY}{key}": column for key, column in self._history().items()}
            header = {name: getattr(self, name) for name in _COUNTERS}
            header |= {"bad_updates": self.bad_updates.state, "player": self.player.state}
            header |= {"replay": self.replay.names, "metrics_size": self.logger.size}
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
        history = {
            name.removeprefix(_HISTORY): arrays.pop(name)
            for name in list(arrays)
            if name.startswith(_HISTORY)
        }
        rows = zip(*history.values(), strict=True)
        self.history = [dict(zip(history, row, strict=True)) for row in rows]
        # Each precision starts from a loss scale of its own.
        self.agent.assign(arrays, loss_scale=header["precision"] == self.config.precision)
        header.setdefault("prefilled", self._prefilled_of_old(header))
        for name in _COUNTERS:
            setattr(self, name, header[name])
        self.bad_updates.state, self.player.state = header["bad_updates"], header["player"]
        train = self.config.train  # in which evaluations and checkpoints may be due earlier now
        self.next_eval = min(self.next_eval, _next_multiple(self.step, train.eval_every))
        self.next_save = min(self.next_save, _next_multiple(self.step, train.save_every))
        self.replay.load(header["replay"])
        return header["metrics_size"]

    def _prefilled_of_old(self, header: dict) -> int | None:
        """Return what a checkpoint without it means: all episodes were of the same length then."""
        prefill, env = self.config.train.prefill, self.config.env
        steps = env.time_limit // env.action_repeat * env.action_repeat
        return prefill * steps if header["episodes"] >= prefill else None

    def _policy(self, purpose: str, training: bool) -> Act:
        idle = self.spec.idle_action()
        return self.player.policy(purpose, self.episodes, training, idle)

    def _history(self) -> Arrays:
        keys = self.history[0] if self.history else {}
        return {key: np.array([metrics[key] for metrics in self.history]) for key in keys}

    def _sample(self, purpose: str, size: int) -> tuple[Arrays, np.ndarray]:
        """Return sequences for an evaluation, and a seed."""
        rng = seeds.generator(self.config.seed, purpose, self.step)
        seed = seeds.stateless(self.config.seed, purpose, self.step)
        return self.replay.sample(size, rng), seed

    def _evaluate_predictions(self) -> None:
        if "image" in self.spec.observation:
            self.logger.video(self.step, "open_loop", self._open_loop_video())
        self._log_model_error()

    def _open_loop_video(self) -> np.ndarray:
        batch, seed = self._sample("video", VIDEO_SEQUENCES)
        context = min(VIDEO_CONTEXT, self.config.replay.length // 2)
        video = self.agent.predict(batch, context, seed).numpy()  # [B, T, H, 3 W, 3]
        return np.concatenate(video, axis=1)

    def _log_model_error(self) -> None:
        batch, seed = self._sample("model error", self.config.replay.batch)
        errors = self.agent.model_error(batch, seed).numpy()  # [H], agent steps ahead
        self.logger.scalars(self.step, {"model_error": errors.mean()})
        ahead = {f"model_error/{h:02d}": error for h, error in enumerate(errors, 1)}
        self.logger.tensorboard(self.step, ahead)

    def _log_episode(self, name: str, episode: Arrays) -> None:
        total, length = float(episode["reward"].sum()), len(episode["reward"]) - 1
        values = {f"{name}/return": total, f"{name}/length": length, "episodes": self.episodes}
        with self.watch("log"):
            self.logger.scalars(self.step, values)
        if name == "train":
            self.logger.progress(self.step, self.episodes, total)
        else:
            self.logger.say(f"evaluation at step {self.step:,}: return {total:.1f}")

    def _log_updates(self, history: Arrays) -> None:
        """Log the mean of each metric over an update block, and the time since the last one."""
        last_step, last_time = self.last_log
        now = time.monotonic()
        values = means(history)
        values["skipped_updates"] = history["skipped_updates"].sum()
        values["nonfinite_actions"] = self.player.nonfinite_actions
        values["expl_amount"] = self.config.train.expl_amount
        values["fps"] = (self.step - last_step) / (now - last_time)
        values |= {f"seconds/{part}": value for part, value in self.watch.flush().items()}
        self.last_log, self.player.nonfinite_actions = (self.step, now), 0
        with self.watch("log"):
            self.logger.scalars(self.step, values)

    def _introduce(self) -> None:
        variables = self.agent.named_variables().values()
        weights = sum(v.shape.num_elements() * v.dtype.size for v in variables)
        spaces = self.eval_env.observation_space.values()
        frame = sum(int(np.prod(space.shape)) * space.dtype.itemsize for space in spaces)
        lines = introduction(self.config, self.logdir, frame, weights)
        for line in lines:
            self.logger.say(line)
        if self.step:
            self.logger.say(f"resumed at step {self.step:,}")


_COUNTERS = (
    *("step", "episodes", "updates", "prefilled"),
    *("next_eval", "next_save", "saved_step"),
)
_IDENTITY = ("variant", "task", "precision")
_HISTORY = "history/"


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
