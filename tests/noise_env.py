"""An environment of random pixels."""

import gymnasium
import numpy as np

STEPS = 12  # agent steps of an episode
SIZE = 16  # pixels of a side


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
        return self._observe(), 0.0, False, self.left == 0, {"env_steps": 2}

    def _observe(self):
        return {"image": self.np_random.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)}


def nan_actions(agent, at):
    """Make the policy return an action and a state that are not numbers at its n-th calls."""
    policy, calls = agent.policy, []

    def act(image, state, seed, training):
        calls.append(np.isfinite(state[1]).all())
        action, state = policy(image, state, seed, training)
        if len(calls) not in at:
            return action, state
        return action * np.nan, (state[0], state[1] * np.nan)

    agent.policy = act
    return calls
