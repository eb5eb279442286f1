"""Episodes: the loop between a policy and environments in their workers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

# From observations `[N, ...]` by name, the policy's own state (None at first) and the agent step
# within the episodes, to actions `[N, A]` and the next state.
Act = Callable[[Arrays, Any, int], tuple[np.ndarray, Any]]


def collect_episodes(
    envs: Sequence[EnvWorker],
    act: Act,
    seeds: Sequence[int],
    watch: Stopwatch,
    frames: bool = False,
) -> list[Arrays]:
    """Return an episode of each of N environments, which take their agent steps together.

    An episode of T agent steps is arrays of T + 1 rows, in the layout of the replay, and
    `env_step`, environment steps since the reset; with `frames` also `frame`, what a viewer sees,
    uint8 `[T + 1, H, W, 3]`. An environment whose episode has ended waits for the others, and the
    actions for it are ignored.
    """
    tapes = [_Tape(env, frames) for env in envs]
    with watch("render"):
        for env, seed in zip(envs, seeds, strict=True):
            env.reset_async(seed)
        for tape in tapes:
            tape.begin()
    state, step = None, 0
    while playing := [number for number, tape in enumerate(tapes) if not tape.ended]:
        with watch("act"):
            last = [tape.observation for tape in tapes]
            batch = {key: np.stack([obs[key] for obs in last]) for key in last[0]}
            actions, state = act(batch, state, step)
        with watch("render"):
            for number in playing:
                envs[number].step_async(actions[number])
            for number in playing:
                tapes[number].step(actions[number])
        step += 1
    return [tape.episode() for tape in tapes]


class _Tape:
    """The rows of one episode."""

    def __init__(self, env: EnvWorker, frames: bool):
        self._env, self._frames, self._rows = env, frames, []
        self.observation: Arrays = {}
        self.ended = False

    def begin(self) -> None:
        """Take what the reset that was begun gives."""
        action = np.zeros(self._env.spec.actions, np.float32)
        self._add(self._env.reset_wait(), action, 0.0, terminated=False)

    def step(self, action: np.ndarray) -> None:
        """Take what the step that was begun with this action gives."""
        observation, reward, terminated, truncated = self._env.step_wait()
        self._add(observation, action, reward, terminated)
        self.ended = terminated or truncated

    def episode(self) -> Arrays:
        """Return all rows, stacked."""
        return {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}

    def _add(self, obs: Arrays, action: np.ndarray, reward: float, terminated: bool) -> None:
        self.observation = obs
        row = {
            **obs,
            "action": action,
            "reward": np.float32(reward),
            # Nothing is gained after a terminal state; a time limit, in contrast, is not the end.
            "discount": np.float32(0.0 if terminated else 1.0),
            "env_step": self._env.env_step,
        }
        if self._frames:
            row["frame"] = obs["image"] if "image" in obs else self._env.render()
        self._rows.append(row)
