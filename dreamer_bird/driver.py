"""One episode: the loop between a policy and an environment in its worker."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays

# From observations by name, the policy's own state (None at first) and the agent step within the
# episode, to an action `[A]` and the next state.
Act = Callable[[Arrays, Any, int], tuple[np.ndarray, Any]]


def collect_episode(
    env: EnvWorker, act: Act, seed: int, watch: Stopwatch, frames: bool = False
) -> Arrays:
    """Return an episode of N agent steps as arrays of N + 1 rows, in the layout of the replay.

    With `frames`, also `frame`, what a viewer sees, uint8 `[N + 1, H, W, 3]`.
    """
    with watch("render"):
        observation = env.reset(seed)
    rows = [_row(observation, np.zeros(env.spec.actions, np.float32), 0.0, terminated=False)]
    film = [_frame(env, observation)] if frames else []
    state, done = None, False
    while not done:
        with watch("act"):
            action, state = act(observation, state, len(rows) - 1)
        with watch("render"):
            observation, reward, terminated, truncated = env.step(action)
        rows.append(_row(observation, action, reward, terminated))
        film += [_frame(env, observation)] if frames else []
        done = terminated or truncated
    episode = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    return episode | {"frame": np.stack(film)} if frames else episode


def _row(observation: dict, action: np.ndarray, reward: float, terminated: bool) -> Arrays:
    return {
        **observation,
        "action": action,
        "reward": np.float32(reward),
        # Nothing is gained after a terminal state; a time limit, in contrast, is not the end.
        "discount": np.float32(0.0 if terminated else 1.0),
    }


def _frame(env: EnvWorker, observation: Arrays) -> np.ndarray:
    return observation["image"] if "image" in observation else env.render()
