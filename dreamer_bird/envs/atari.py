"""Atari games of ale-py, with the settings of the public TensorFlow 2 Dreamer."""

from collections import deque
from typing import Any

import ale_py
import gymnasium
import numpy as np

from dreamer_bird.envs.spaces import ENV_STEPS

_STICKY = 0.25  # probability that a frame repeats the action before
_MOST_NOOPS = 30  # frames


class Atari(gymnasium.Wrapper):
    """A game with its minimal set of actions, in colour, uint8 `[height, width, 3]`.

    An agent step is `action_repeat` frames and shows the maximum of the last two, since things
    flicker; an episode begins with 1 to 30 frames in which nothing is done, and is a whole game.
    `kwargs` are ale-py's: mode, difficulty, obs_type and others.
    """

    def __init__(self, game: str, action_repeat: int = 4, **kwargs: Any):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # else it prints its name
        options = {"repeat_action_probability": _STICKY, "render_mode": "rgb_array"} | kwargs
        super().__init__(ale_py.AtariEnv(game, frameskip=1, **options))
        self._action_repeat = action_repeat

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a game that depends on seed and actions alone; without a seed on chance."""
        image, info = self.env.reset(seed=seed)
        for _ in range(np.random.default_rng(seed).integers(1, _MOST_NOOPS, endpoint=True)):
            image, _, *ends, info = self.env.step(0)
            if any(ends):
                image, info = self.env.reset()
        return image, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat an action until the game is over, and sum the rewards."""
        frames, rewards = deque(maxlen=2), []
        for _ in range(self._action_repeat):
            image, reward, *ends, info = self.env.step(action)
            frames.append(image)
            rewards.append(reward)
            if any(ends):
                break
        if image.ndim > 1:  # the game's memory, with `obs_type: ram`, does not flicker
            image = np.max(frames, axis=0)
        return image, sum(rewards), *ends, {**info, ENV_STEPS: len(rewards)}
