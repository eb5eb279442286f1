"""A point on a line that is to stand at zero: run.py --task point:Point, from this folder."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Point(gymnasium.Env):
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)  # position and velocity
    action_space = Box(-3.0, 3.0, (1,), np.float32)  # force
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action):
        self.state = self.state + 0.1 * np.array([self.state[1], action[0]], np.float32)
        distance = abs(float(self.state[0]))
        return self.state, 1 - distance, distance > 2, False, {}

    def render(self):
        columns = np.linspace(-2, 2, 64)
        line = np.exp(-20 * (columns - self.state[0]) ** 2)
        return np.tile((255 * line).astype(np.uint8)[None, :, None], (64, 1, 3))
