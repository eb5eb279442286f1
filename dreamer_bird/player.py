"""How a run acts in its environments, and what it does when they or its actions fail."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from dreamer_bird import seeds
from dreamer_bird.agent import Agent
from dreamer_bird.driver import Act, collect_episode
from dreamer_bird.envs.spaces import random_action
from dreamer_bird.envs.worker import EnvWorker, WorkerError
from dreamer_bird.errors import RunError
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays
from dreamer_bird.watchdog import Streak


class Player:
    """Plays episodes, each a function of weights, seed and number; none if it is not completed."""

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
        self._bad_actions = Streak("actions", limit)
        self.nonfinite_actions = 0  # since they were last logged

    @property
    def state(self) -> list:
        """What a checkpoint keeps."""
        return [self._bad_actions.state, self.nonfinite_actions]

    @state.setter
    def state(self, state: list) -> None:
        self._bad_actions.state, self.nonfinite_actions = state

    def play(
        self, env: EnvWorker, act: Act, seed: int, watch: Stopwatch, frames: bool = False
    ) -> Arrays:
        """Return what `collect_episode` does, from the start again if the worker may be restarted.

        It is the same episode then, since all of it follows from the seed.
        """
        before = self.state
        for restarts_left in reversed(range(self._restarts + 1)):
            try:
                return collect_episode(env, act, seed, watch, frames)
            except RunError as error:
                self.state = before
                self._check()  # a signal to the whole group may have ended a worker as it started
                if not (isinstance(error, WorkerError) and restarts_left):
                    raise
                reason = str(error).splitlines()[0]
                warnings.warn(f"{reason}; its episode begins again in a new worker", stacklevel=2)
                env.restart()

    def random(self, space: gymnasium.spaces.Box, number: int) -> Act:
        """Return uniform actions, for the episode of that number."""

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            return random_action(space, seeds.generator(self._seed, "prefill", number, t)), None

        return act

    def policy(self, purpose: str, number: int, training: bool, idle: np.ndarray) -> Act:
        """Return the policy for the episode of that number: with exploration, or its mode.

        An action that is not finite is counted and replaced by `idle`, and the policy's state
        begins anew.
        """

        def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
            self._check()
            seed = seeds.stateless(self._seed, purpose, number, t)
            action, state = self._agent.act(obs, state, seed, training)
            finite = bool(np.isfinite(action).all())
            self._bad_actions.count(None if finite else f"the action at agent step {t}")
            self.nonfinite_actions += not finite
            return (action, state) if finite else (idle, None)

        return act
