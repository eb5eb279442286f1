"""An environment that fails where its state leads too far, as a simulator does."""

import gymnasium
import numpy as np


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
        return self._observe(), 0.0, False, False, {}

    def _observe(self):
        return np.array([self.x], np.float32)
