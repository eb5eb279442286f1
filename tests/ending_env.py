"""An environment whose episodes end at their tenth step."""

import gymnasium
import numpy as np


class Ending(gymnasium.Env):
    """Observes the step."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    render_mode = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.float32([0]), {}

    def step(self, action):
        self.t += 1
        return np.float32([self.t]), 1.0, self.t == 10, False, {}
