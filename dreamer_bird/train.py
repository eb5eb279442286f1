"""Training: Algorithm 1 of the BIRD paper, with evaluation, logs and checkpoints around it."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dreamer_bird import checkpoint, seeds
from dreamer_bird.agent import IMAGE_SHAPE, Agent
from dreamer_bird.config import Config
from dreamer_bird.driver import Act, collect_episode
from dreamer_bird.envs import make_env
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import CheckpointError, RunError
from dreamer_bird.logdir import claim_logdir
from dreamer_bird.logger import Logger
from dreamer_bird.precision import resolve_precision
from dreamer_bird.replay import Replay
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays

VIDEO_SEQUENCES = 6
VIDEO_CONTEXT = 5


def train(config: Config) -> None:
    """Train until `config.steps`, from the last checkpoint in the logdir if there is one.

    Raises RunError if training cannot go on.
    """
    config = config.replace(precision=resolve_precision(config.precision))
    make = partial(make_env, config.task, size=IMAGE_SHAPE[0], **config.env)
    with ExitStack() as stack:
        logdir = stack.enter_context(claim_logdir(config))
        env, eval_env = (
            stack.enter_context(EnvWorker(name, make)) for name in ("train", "evaluate")
        )
        run = Run(config, logdir, env, eval_env)
        stack.callback(run.logger.close)
        while run.step < config.steps:
            run.collect()
            if run.episodes >= config.train.prefill:
                run.update()
                run.evaluate_if_due()
            run.save_if_due()
        run.save_if_due(last=True)
        run.logger.say(f"finished at step {run.step:,}: {logdir}")


class Run:
    """One run: its parts, its counters, and the steps of Algorithm 1.

    All randomness is a function of the seed and of these counters, so that restoring them and the
    weights restores the run.
    """

    def __init__(self, config: Config, logdir: Path, env: EnvWorker, eval_env: EnvWorker):
        """Build everything, and restore the last checkpoint if there is one."""
        self.config, self.logdir = config, logdir
        self.env, self.eval_env = env, eval_env
        self.step = self.episodes = self.updates = self.saved_step = 0
        self.next_eval, self.next_save = 0, config.train.save_every
        self.skipped_in_a_row = 0
        self.watch = Stopwatch()
        repeat, capacity = config.env.action_repeat, config.replay.capacity
        capacity = capacity and capacity // repeat
        self.replay = Replay(logdir / "episodes", capacity, config.replay.length)
        self.agent = Agent(config, env.action_space.shape[0])
        metrics_size = self._restore()
        self.logger = Logger(logdir, config.steps, self.step, metrics_size)
        self.last_log = self.step, time.monotonic()
        self._introduce()

    def collect(self) -> None:
        """Interact with the environment for one episode and add it to the replay."""
        config = self.config
        prefill = self.episodes < config.train.prefill
        act = self._random if prefill else self._policy("act", training=True)
        seed = seeds.integer(config.seed, "environment", self.episodes)
        episode = collect_episode(self.env, act, seed, self.watch)
        length = len(episode["reward"]) - 1
        self.episodes += 1
        self.step += length * config.env.action_repeat
        with self.watch("replay"):
            self.replay.add(f"{self.episodes:06d}-{length}", episode)
        self._log_episode("train", episode)

    def update(self) -> None:
        """Train for the updates that a finished episode brings, and log their means."""
        collected = []
        for _ in range(self.config.train.updates):
            with self.watch("replay"):
                rng = seeds.generator(self.config.seed, "replay", self.updates)
                batch = self.replay.sample(self.config.replay.batch, rng)
            with self.watch("train"):
                seed = seeds.stateless(self.config.seed, "train", self.updates)
                collected.append(self.agent.train_step(batch, seed))
            self.updates += 1
        with self.watch("train"):
            history = {key: np.array([m[key] for m in collected]) for key in collected[0]}
        self._log_updates(history)
        self._stop_if_diverged(history["skipped_updates"])

    def evaluate_if_due(self) -> None:
        """Play an episode with the mode of the policy, and predict some sequences open-loop."""
        if self.step < self.next_eval:
            return
        every = self.config.train.eval_every
        self.next_eval = (self.step // every + 1) * every
        with self.watch("evaluate"):
            seed = seeds.integer(self.config.seed, "evaluation environment", self.step)
            act = self._policy("evaluate", training=False)
            episode = collect_episode(self.eval_env, act, seed, Stopwatch())
            self.logger.video(self.step, "evaluation", episode["image"], save=True)
            self.logger.video(self.step, "open_loop", self._open_loop_video())
        self._log_episode("test", episode)

    def save_if_due(self, last: bool = False) -> None:
        """Write a checkpoint when enough steps, or `last` any, were made since the last one."""
        if self.step >= self.next_save or (last and self.step > self.saved_step):
            self.save()

    def save(self) -> None:
        """Write a checkpoint: weights, optimizers, counters, and what of the logs belongs to it."""
        every = self.config.train.save_every
        self.next_save = (self.step // every + 1) * every
        self.saved_step = self.step
        with self.watch("log"):
            arrays = {name: v.numpy() for name, v in self.agent.named_variables().items()}
            header = {name: getattr(self, name) for name in _COUNTERS}
            header |= {"replay": self.replay.names, "metrics_size": self.logger.size}
            header["precision"] = self.config.precision
            checkpoint.save(self.logdir / "checkpoints", self.step, arrays, header)

    def _restore(self) -> int | None:
        found = checkpoint.load_latest(self.logdir / "checkpoints")
        if found is None:
            return None
        arrays, header = found
        variables = self.agent.named_variables()
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        if shapes != {name: array.shape for name, array in arrays.items()}:
            raise CheckpointError(f"the checkpoint in {self.logdir} is of networks of other sizes")
        for name, variable in variables.items():
            # Each precision starts from a loss scale of its own.
            if header["precision"] == self.config.precision or "loss_scale" not in name:
                variable.assign(arrays[name])
        for name in _COUNTERS:
            setattr(self, name, header[name])
        self.replay.load(header["replay"])
        return header["metrics_size"]

    def _random(self, image: np.ndarray, state: Any, t: int) -> tuple[np.ndarray, Any]:
        rng = seeds.generator(self.config.seed, "prefill", self.episodes, t)
        space = self.env.action_space
        return rng.uniform(space.low, space.high).astype(np.float32), None

    def _policy(self, purpose: str, training: bool) -> Act:
        def act(image: np.ndarray, state: Any, t: int) -> tuple[np.ndarray, Any]:
            state = self.agent.initial(1) if state is None else state
            seed = seeds.stateless(self.config.seed, purpose, self.episodes, t)
            action, state = self.agent.policy(image[None], state, seed, training)
            return action.numpy()[0], state

        return act

    def _open_loop_video(self) -> np.ndarray:
        rng = seeds.generator(self.config.seed, "video", self.step)
        batch = self.replay.sample(VIDEO_SEQUENCES, rng)
        seed = seeds.stateless(self.config.seed, "video", self.step)
        context = min(VIDEO_CONTEXT, self.config.replay.length // 2)
        video = self.agent.predict(batch, context, seed).numpy()  # [B, T, 64, 192, 3]
        return np.concatenate(video, axis=1)

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
        values = {key: _finite_mean(column) for key, column in history.items()}
        values["skipped_updates"] = history["skipped_updates"].sum()
        values["expl_amount"] = self.config.train.expl_amount
        values["fps"] = (self.step - last_step) / (now - last_time)
        values |= {f"seconds/{part}": value for part, value in self.watch.flush().items()}
        self.last_log = self.step, now
        with self.watch("log"):
            self.logger.scalars(self.step, values)

    def _stop_if_diverged(self, skipped: np.ndarray) -> None:
        for update in skipped:
            self.skipped_in_a_row = self.skipped_in_a_row + 1 if update else 0
            if self.skipped_in_a_row >= self.config.train.max_skipped:
                raise RunError(
                    f"training diverged: {self.skipped_in_a_row} updates in a row had a loss or "
                    "gradient that is not finite and were skipped; the last checkpoint in "
                    f"{self.logdir} is intact: resume from it with --precision float32"
                )

    def _introduce(self) -> None:
        config, say = self.config, self.logger.say
        say(f"{config.variant} on {config.task}, seed {config.seed}, {config.precision}")
        say(f"logdir {self.logdir}")
        steps = config.replay.capacity or config.steps
        gigabytes = steps / config.env.action_repeat * np.prod(IMAGE_SHAPE) / 1e9
        say(f"replay of {steps:,} environment steps, {gigabytes:.2f} GB of memory when full")
        if self.step:
            say(f"resumed at step {self.step:,}")


_COUNTERS = (
    "step",
    "episodes",
    "updates",
    "next_eval",
    "next_save",
    "saved_step",
    "skipped_in_a_row",
)


def _finite_mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
