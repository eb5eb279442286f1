"""What an agent must know of an environment: its observations and its actions."""

from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box

_ROUNDING = 1e-5  # of actions

# Of what a step tells beside the observation: the environment steps that it took. A name that no
# environment of others has.
ENV_STEPS = "dreamer_bird.env_steps"


class OneHot(Box):
    """Discrete actions as vectors `[n]` with a single 1."""

    def __init__(self, n: int):
        super().__init__(0.0, 1.0, (n,), np.float32)

    def sample(self, mask: None = None, probability: None = None) -> np.ndarray:
        """Return a uniformly drawn action."""
        return np.eye(*self.shape, dtype=np.float32)[self.np_random.integers(*self.shape)]

    def contains(self, x: np.ndarray) -> bool:
        """Return whether `x` is a one-hot vector of this size."""
        return super().contains(x) and np.count_nonzero(x) == 1 and x.max() == 1


class Spec(NamedTuple):
    """Shapes of the observations by name, number of action dimensions, and their kind."""

    observation: dict[str, tuple[int, ...]]
    actions: int
    discrete: bool = False

    def idle_action(self) -> np.ndarray:
        """Return the zero action `[A]`, or the first of discrete ones."""
        action = np.zeros(self.actions, np.float32)
        action[0] = self.discrete
        return action


class Facts(NamedTuple):
    """What an environment's process tells of it before the first episode."""

    observation_space: gymnasium.spaces.Dict
    action_space: Box
    time_limit: int | None  # environment steps of an episode at most, as far as is known
    notes: tuple[str, ...]  # lines on what of the environment a user may not expect


def random_action(space: Box, rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly drawn action `[A]` that depends on the generator alone."""
    if isinstance(space, OneHot):
        return np.eye(*space.shape, dtype=np.float32)[rng.integers(*space.shape)]
    return rng.uniform(space.low, space.high).astype(np.float32)


def checked_action(space: Box, action: np.ndarray) -> np.ndarray:
    """Return an action `[A]` as float64, within the bounds of the space.

    Raises `ValueError` for one that is not in the space, rounding aside.
    """
    values = np.asarray(action, np.float64)
    if values.shape != space.shape:
        raise ValueError(f"action {action} has shape {values.shape} instead of {space.shape}")
    if isinstance(space, OneHot):
        nearest, kind = np.eye(*space.shape)[values.argmax()], "one-hot"
    else:
        nearest, kind = values.clip(-1, 1), "finite and within [-1, 1]"
    if not np.all(np.abs(values - nearest) <= _ROUNDING):  # also false for NaN
        raise ValueError(f"action {action} is not {kind}")
    return nearest
