"""Tasks of the DeepMind Control Suite. `MUJOCO_GL` must be set before this is imported."""

import os

import gymnasium
import numpy as np
from absl import logging
from dm_control import suite
from dm_control.mujoco import Camera
from dm_control.rl.control import Environment
from gymnasium.spaces import Box, Dict

from dreamer_bird.envs.rendering import NO_BACKEND, NOT_FOUND, RenderingError
from dreamer_bird.utils.files import Arrays

_DOMAINS = {"cup": "ball_in_cup"}
_CAMERAS = {"quadruped": 2}  # Follows the robot; camera 0 of the other domains does so already.


class DeepMindControl(gymnasium.Env):
    """`dmc_<domain>_<task>` with the suite's own actions and observations, and no time limit."""

    render_mode = "rgb_array"

    def __init__(self, task: str, size: int, shadows: bool):
        _, self._domain, name = task.split("_", 2)
        self._env = _load(_DOMAINS.get(self._domain, self._domain), name)
        self._size, self._shadows = size, shadows
        self._camera: Camera | None = None
        rate = round(1 / self._env.control_timestep())
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": rate}
        actions = self._env.action_spec()
        self.action_space = Box(actions.minimum, actions.maximum, dtype=actions.dtype)
        fields = self._env.observation_spec().items()
        # A list keeps the suite's order, in which they become `state`; a dictionary is sorted.
        self.observation_space = Dict(
            [(key, Box(-np.inf, np.inf, field.shape, field.dtype)) for key, field in fields]
        )

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Arrays, dict]:
        """Start an episode; given a seed in [0, 2**32), it depends on seed and actions alone."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed)
        return dict(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[Arrays, float, bool, bool, dict]:
        """Take one step of the suite with an action `[A]` within its bounds."""
        timestep = self._env.step(action)
        terminated = timestep.last() and timestep.discount == 0
        truncated = timestep.last() and not terminated
        return dict(timestep.observation), float(timestep.reward), terminated, truncated, {}

    def render(self) -> np.ndarray:
        """Return an image, uint8 `[size, size, 3]`; raise `RenderingError` without OpenGL."""
        if self._camera is None:
            if os.environ.get("MUJOCO_GL") == NO_BACKEND:
                raise RenderingError(NOT_FOUND)
            self._camera = self._make_camera()
        # The camera returns a view of a buffer that the next frame overwrites.
        return self._camera.render().copy()

    def close(self) -> None:
        """Free the simulation and its OpenGL context."""
        self._env.physics.free()

    def _make_camera(self) -> Camera:
        # In software a frame costs about 100 times its physics. A buffer of the image's size
        # instead of 640x480, and one camera instead of a new one per frame, give the same pixels
        # sooner (pendulum 22 -> 17 ms); without shadows they take 3 ms, but floors lose the
        # light's bright spot. The context that the camera creates reads these settings once.
        physics = self._env.physics
        physics.model.vis.global_.offwidth = physics.model.vis.global_.offheight = self._size
        if not self._shadows:
            physics.model.vis.quality.shadowsize = 0
        return Camera(physics, self._size, self._size, _CAMERAS.get(self._domain, 0))


def _load(domain: str, task: str) -> Environment:
    # The suite's own models use deprecated MJCF, about which a user can do nothing.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return suite.load(domain, task, task_kwargs={"time_limit": float("inf")})
    finally:
        logging.set_verbosity(verbosity)
