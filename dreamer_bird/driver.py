"""One episode: the loop between a policy and an environment in its worker."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays

# From an image `[H, W, C]`, the policy's own state (None at first) and the agent step within the
# episode, to an action `[A]` and the next state.
Act = Callable[[np.ndarray, Any, int], tuple[np.ndarray, Any]]


def collect_episode(env: EnvWorker, act: Act, seed: int, watch: Stopwatch) -> Arrays:
    """Return an episode of N agent steps as arrays of N + 1 rows, in the layout of the replay."""
    with watch("render"):
        observation = env.reset(seed)
    size = env.action_space.shape[0]
    rows = [_row(observation, np.zeros(size, np.float32), 0.0, terminated=False)]
    state, done = None, False
    while not done:
        with watch("act"):
            action, state = act(observation["image"], state, len(rows) - 1)
        with watch("render"):
            observation, reward, terminated, truncated = env.step(action)
        rows.append(_row(observation, action, reward, terminated))
        done = terminated or truncated
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _row(observation: dict, action: np.ndarray, reward: float, terminated: bool) -> Arrays:
    return {
        "image": observation["image"],
        "action": action,
        "reward": np.float32(reward),
        # Nothing is gained after a terminal state; a time limit, in contrast, is not the end.
        "discount": np.float32(0.0 if terminated else 1.0),
    }
