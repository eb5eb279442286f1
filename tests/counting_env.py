"""An environment whose pixels show which step they belong to and which action led there."""

import gymnasium
import numpy as np


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
