"""Environments that are small, or fail, or end when they are told to."""

import os

import gymnasium
import numpy as np

from dreamer_bird.envs.spaces import ENV_STEPS

STEPS = 12  # agent steps of an episode of noise
SIZE = 16  # pixels of a side of its images


class CountingEnv(gymnasium.Env):
    """Pixel [0, 0] holds the step, pixel [0, 1] the action in 0..255; the reward is 10 * step."""

    observation_space = gymnasium.spaces.Dict(
        {"image": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)}
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int, terminal: bool):
        self._length, self._terminal = length, terminal

    def reset(self, *, seed=None, options=None):
        self._step = 0
        return self._observe(np.zeros(1)), {}

    def step(self, action):
        self._step += 1
        last = self._step == self._length
        ends = last and self._terminal, last and not self._terminal
        return self._observe(action), 10.0 * self._step, *ends, {}

    def _observe(self, action):
        image = np.zeros((8, 8, 3), np.uint8)
        image[0, 0] = self._step
        image[0, 1] = shown(action)
        return {"image": image}


def shown(action):
    """Return the pixel value that stands for an action."""
    return np.round((np.asarray(action, np.float64)[..., 0] + 1) / 2 * 255).astype(np.uint8)


class Noise(gymnasium.Env):
    """Random pixels and no reward; fails once at its fourth step where a file says so."""

    observation_space = gymnasium.spaces.Dict(
        {"image": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)}
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, failure):
        self.failure = failure

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = STEPS
        return self._observe(), {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.left -= 1
        if self.left == STEPS - 4 and self.failure.exists():
            self.failure.unlink()
            raise ValueError("joint out of range")
        return self._observe(), 0.0, False, self.left == 0, {ENV_STEPS: 2}

    def _observe(self):
        return {"image": self.np_random.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)}


def nan_actions(agent, at):
    """Make the policy return an action and a state that are not numbers at its n-th calls."""
    policy, calls = agent._traced["policy"], []

    def act(image, state, seed, training):
        calls.append(np.isfinite(state[1]).all())
        action, state = policy(image, state, seed, training)
        if len(calls) not in at:
            return action, state
        return action * np.nan, (state[0], state[1] * np.nan)

    act.experimental_get_tracing_count = policy.experimental_get_tracing_count
    agent._traced["policy"] = act
    return calls


class Cliff(gymnasium.Env):
    """A walk along x from a random start; raises beyond x > 1, always from the same seeds."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    render_mode = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(0, 1)
        return self._observe(), {}

    def step(self, action):
        self.x += 0.1 * float(action[0])
        if self.x > 1:
            raise ValueError("beyond the cliff")
        return self._observe(), 0.0, False, False, None

    def _observe(self):
        return np.array([self.x], np.float32)


class Ending(gymnasium.Env):
    """Observes the step; episodes end at their tenth."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    render_mode = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.float32([0]), {}

    def step(self, action):
        self.t += 1
        return np.float32([self.t]), 1.0, self.t == 10, False, {"env_steps": "its own"}


class Refused(Ending):
    """Begins beyond its own bounds, but from seed 0."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return obs + 11 * (seed != 0), info


class Undrawn(Ending):
    """Cannot be drawn: as `harm` says `render` raises, ends the process, or returns nothing."""

    render_mode = "rgb_array"

    def __init__(self, harm):
        self.harm = harm

    def render(self):
        if self.harm == "raises" and self.t > 4:
            raise ValueError("no light")
        if self.harm == "ends":
            os._exit(3)
        return None if self.harm == "nothing" else np.zeros((4, 4, 3), np.uint8)
