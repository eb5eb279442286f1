"""Atari games of ale-py, with the settings of the public TensorFlow 2 Dreamer."""

from collections import deque
from typing import Any

import ale_py
import gymnasium
import numpy as np

from dreamer_bird.envs.spaces import ENV_STEPS

_STICKY = 0.25  # probability that a frame repeats the action before
_MOST_NOOPS = 30  # frames


class Atari(gymnasium.Env):
    """A game with its minimal set of actions, in colour, uint8 `[height, width, 3]`.

    An agent step is `action_repeat` frames and shows the maximum of the last two, since things
    flicker; an episode begins with 1 to 30 frames in which nothing is done, and is a whole game.
    `kwargs` are ale-py's: mode, difficulty, obs_type and others.
    """

    def __init__(self, game: str, action_repeat: int = 4, **kwargs: Any):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it prints its name
        options = {"repeat_action_probability": _STICKY} | kwargs
        self._env = ale_py.AtariEnv(game, frameskip=1, **options)
        self._action_repeat = action_repeat
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game; given a seed, it depends on seed and actions alone."""
        super().reset(seed=seed)
        image, info = self._env.reset(seed=seed)
        for _ in range(self.np_random.integers(1, _MOST_NOOPS, endpoint=True)):
            image, _, *ends, info = self._env.step(0)
            if any(ends):
                image, info = self._env.reset()
        return image, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action until the game is over, and sum the rewards."""
        frames, total, env_steps = deque(maxlen=2), 0.0, 0
        for _ in range(self._action_repeat):
            image, reward, *ends, info = self._env.step(action)
            env_steps += 1
            frames.append(image)
            total += reward
            if any(ends):
                break
        return np.max(frames, axis=0), total, *ends, {**info, ENV_STEPS: env_steps}

    def close(self) -> None:
        """Free the emulator."""
        self._env.close()
