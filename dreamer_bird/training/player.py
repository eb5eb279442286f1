"""How a run acts in its environments, and what it does when they or its actions fail."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

from dreamer_bird.agent.agent import Agent
from dreamer_bird.envs.spaces import random_action
from dreamer_bird.envs.worker import EnvError, EnvWorker, WorkerError
from dreamer_bird.errors import RunError
from dreamer_bird.training.driver import Act, collect_episodes
from dreamer_bird.training.watchdog import Streak
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch


class Player:
    """Plays episodes, each a function of weights, seed, number and attempt; whole ones only.

    A failure that state and action decide would come again, in this run and whenever it is resumed:
    another attempt at the episode draws other random numbers, in the environment and here.
    """

    def __init__(
        self, agent: Agent, seed: int, restarts: int, limit: int, check: Callable[[], None]
    ):
        """Take what acts.

        Args:
            agent: whose policy is followed.
            seed: of the run.
            restarts: of a failed worker, for each episode.
            limit: actions in a row that are not finite, at which DivergedError is raised.
            check: called before each agent step; may raise Stopped.
        """
        self._agent, self._seed, self._restarts, self._check = agent, seed, restarts, check
        self._limit = limit
        self._bad_actions = Streak("actions", limit)
        self._attempt = 0  # at the episode under way; failed ones came before
        self.nonfinite_actions = 0  # since they were last logged

    @property
    def state(self) -> list:
        """What a checkpoint keeps."""
        return [self._bad_actions.state, self.nonfinite_actions, self._attempt]

    @state.setter
    def state(self, state: list) -> None:
        self._bad_actions.state, self.nonfinite_actions, self._attempt = state

    def fork(self, check: Callable[[], None]) -> "Player":
        """Return a player that goes on from here, for episodes that may never count."""
        fork = Player(self._agent, self._seed, self._restarts, self._limit, check)
        fork.state = [self._bad_actions.state, 0, self._attempt]
        return fork

    def take_over(self, fork: "Player") -> None:
        """Count what a fork has counted."""
        bad_actions, nonfinite, attempt = fork.state
        self.state = [bad_actions, self.nonfinite_actions + nonfinite, attempt]

    def play(
        self,
        envs: Sequence[EnvWorker],
        act: Act,
        purpose: str,
        numbers: Sequence[int],
        watch: Stopwatch,
        frames: bool = False,
    ) -> list[Arrays]:
        """Return what `collect_episodes` does, from the start again if workers may be restarted.

        The environments' seeds are those for a purpose, of the episodes with these numbers. They
        are the same episodes again after a worker was killed, and others where that will not help.
        """
        *before, _ = self.state
        for restarts_left in reversed(range(self._restarts + 1)):
            starts = [
                seeds.integer(self._seed, purpose, number, self._attempt) for number in numbers
            ]
            try:
                episodes = collect_episodes(envs, act, starts, watch, frames)
                self._attempt = 0
                return episodes
            except RunError as error:
                self.state = [*before, self._attempt]
                self._check()  # a signal to the whole group may have ended a worker as it started
                if not isinstance(error, WorkerError):
                    raise
                self._attempt += isinstance(error, EnvError) or not restarts_left
                if not restarts_left:
                    raise
                lines = str(error).splitlines()  # of a traceback the last one says what it was
                reason = lines[0] if len(lines) == 1 else f"{lines[0].rstrip()} {lines[-1]}"
                warnings.warn(f"{reason}; its episode begins again in a new worker", stacklevel=2)
                for env in envs:
                    env.restart()

    def random(self, space: gymnasium.spaces.Box, number: int) -> Act:
        """Return uniform actions, for the episodes from that number on."""

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            count = len(next(iter(obs.values())))
            draws = (
                seeds.generator(self._seed, "prefill", each, t, self._attempt)
                for each in range(number, number + count)
            )
            return np.stack([random_action(space, draw) for draw in draws]), None

        return act

    def policy(self, purpose: str, number: int, training: bool, idle: np.ndarray) -> Act:
        """Return the policy for the episodes from that number on: exploring, or its mode.

        An action that is not finite is counted and replaced by `idle`, and the policy's state
        begins anew.
        """

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            seed = seeds.stateless(self._seed, purpose, number, t, self._attempt)
            actions, state = self._agent.act(obs, state, seed, training)
            finite = np.isfinite(actions).all(-1)
            self._bad_actions.count(None if finite.all() else f"the action at agent step {t}")
            self.nonfinite_actions += int((~finite).sum())
            if not finite.all():
                actions = np.where(finite[:, None], actions, idle)
                state = self._agent.begin_anew(state, ~finite)
            return actions, state

        return act
