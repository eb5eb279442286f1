"""Plays a run's episodes, and plays them again after failures."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import random_action
from dreamer_bird.envs.worker import EnvError, EnvWorker, FilmError, WorkerError
from dreamer_bird.errors import RunError
from dreamer_bird.training.driver import Act, collect_episodes
from dreamer_bird.training.watchdog import Streak
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch


class Collector:
    """Plays whole episodes, each a function of weights, seed, numbers and attempt.

    A failure that state and action decide would come again, in this run and whenever it is resumed:
    another attempt at the episode draws other random numbers, in the environment and here.
    """

    # What `OverlappingCollector` changes: here no copy acts, and nothing is played ahead.
    copied_for: int | None = None  # the first episode that a copy of the policy plays, if any

    def __init__(
        self,
        config: Config,
        agent: Agent,
        envs: Sequence[EnvWorker],
        check: Callable[[], None],
        watch: Stopwatch,
    ):
        """Take who acts and where; `check` is called before each step, and may raise Stopped."""
        self._config, self._agent, self._envs = config, agent, envs
        self._check, self.watch = check, watch
        self.watch_ahead = Stopwatch()  # times of the last episodes that were played ahead
        self._bad_actions = Streak("actions", config.train.max_skipped)
        self._attempt = 0  # at the episode under way; failed ones came before
        self.nonfinite_actions = 0  # since they were last logged

    def to_save(self) -> list:
        """Return what a checkpoint keeps of failures."""
        return [self._bad_actions.to_save(), self.nonfinite_actions, self._attempt]

    def restore(self, saved: Sequence) -> None:
        """Go on from what `to_save` returned."""
        bad_actions, self.nonfinite_actions, self._attempt = saved
        self._bad_actions.restore(bad_actions)

    @property
    def copied_weights(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds of a copy of the policy, none where there is no copy."""
        return {}

    def restore_copy(self, weights: Arrays, copied_for: int | None) -> None:
        """Take what a checkpoint holds of a copy of the policy, where there is one."""

    def play_ahead(self, first: int, count: int) -> None:
        """Begin to play episodes that will be due, where that is wanted."""

    def close(self) -> None:
        """Give up what is being played ahead."""

    def collect(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of the exploring policy, from the number `first` on."""
        act = self.policy("act", first, training=True)
        return self.play(act, "environment", range(first, first + count))

    def collect_random(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of uniform actions, from the number `first` on."""
        return self.play(self._random(first), "environment", range(first, first + count))

    def play(
        self, act: Act, purpose: str, numbers: Sequence[int], frames: bool = False
    ) -> list[Arrays]:
        """Return the episodes with these numbers, played by `act`; try again after failures.

        Up to `worker.restarts` times: with the same seeds if a worker was killed, with new ones if
        an environment raised an error. A failure to render, which `frames` asks for, is none.
        """
        bad_actions, nonfinite, _ = self.to_save()
        envs, seed = self._envs[: len(numbers)], self._config.seed
        for restarts_left in reversed(range(self._config.worker.restarts + 1)):
            starts = [seeds.integer(seed, purpose, number, self._attempt) for number in numbers]
            try:
                episodes = collect_episodes(envs, act, starts, self.watch, frames)
                self._attempt = 0
                return episodes
            except RunError as error:
                self.restore([bad_actions, nonfinite, self._attempt])
                self._check()  # a signal to the process group may have killed the worker: then stop
                if not isinstance(error, WorkerError):
                    raise
                if isinstance(error, FilmError):  # it warned, and films no more
                    for env in envs:
                        env.restart()
                    return self.play(act, purpose, numbers)
                if isinstance(error, EnvError) or not restarts_left:
                    self._attempt += 1
                if not restarts_left:
                    raise
                lines = str(error).splitlines()  # of a traceback the last one says what it was
                reason = lines[0] if len(lines) == 1 else f"{lines[0].rstrip()} {lines[-1]}"
                warnings.warn(f"{reason}; its episode begins again in a new worker", stacklevel=2)
                for env in envs:
                    env.restart()

    def policy(self, purpose: str, number: int, training: bool) -> Act:
        """Return the policy for the episodes from that number on: exploring, or its mode.

        An action that is not finite is counted and replaced by an idle one, and the policy's state
        begins anew.
        """

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            seed = seeds.stateless(self._config.seed, purpose, number, t, self._attempt)
            actions, state = self._agent.act(obs, state, seed, training)
            finite = np.isfinite(actions).all(-1)
            self._bad_actions.count(None if finite.all() else f"the action at agent step {t}")
            self.nonfinite_actions += int((~finite).sum())
            if not finite.all():
                idle = self._envs[0].spec.idle_action()
                actions = np.where(finite[:, None], actions, idle)
                state = self._agent.begin_anew(state, ~finite)
            return actions, state

        return act

    def _random(self, first: int) -> Act:
        """Return uniform actions for the episodes from that number on."""
        seed, space = self._config.seed, self._envs[0].action_space

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            count = len(next(iter(obs.values())))
            draws = (
                seeds.generator(seed, "prefill", number, t, self._attempt)
                for number in range(first, first + count)
            )
            return np.stack([random_action(space, draw) for draw in draws]), None

        return act
