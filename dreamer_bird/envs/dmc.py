"""Tasks of the DeepMind Control Suite. `MUJOCO_GL` must be set before this is imported."""

from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from absl import logging
from dm_control import suite
from dm_control.mujoco import Camera
from dm_control.rl.control import Environment
from gymnasium.spaces import Box, Dict

from dreamer_bird.envs.rendering import RenderingError, opengl
from dreamer_bird.errors import ConfigError
from dreamer_bird.utils.files import Arrays

# They follow the robot; camera 0 of the other tasks does so already, or shows all there is.
_CAMERAS = {"quadruped": 2, "dog_fetch": 2}
_UNBOUNDED = 1e10  # the suite's bounds of an actuator that has none, as those of lqr


class DeepMindControl(gymnasium.Env):
    """`dmc_<domain>_<task>` with the suite's own actions and observations, and no time limit.

    `kwargs` are the task's own, and `camera` the name or number of one. Raises `ConfigError` for a
    camera that it does not have, and for a time limit. Actions that the suite does not bound are
    those in [-1, 1].
    """

    render_mode = "rgb_array"

    def __init__(
        self, task: str, size: int, shadows: bool, camera: str | None, kwargs: dict[str, Any]
    ):
        name = task.removeprefix("dmc_").replace("ball_in_cup", "cup").replace("cup", "ball_in_cup")
        pair = next(pair for pair in suite.ALL_TASKS if "_".join(pair) == name)
        # The suite's own models use deprecated MJCF, about which a user can do nothing.
        logging.set_verbosity(logging.ERROR)
        if "time_limit" in kwargs:  # in seconds, of which nothing else would know
            raise ConfigError("--env.kwargs time_limit: use --env.time_limit, in environment steps")
        self._env = suite.load(*pair, task_kwargs={"time_limit": float("inf")} | kwargs)
        self._size, self._shadows = size, shadows
        self._camera_id = _camera_id(task, self._env, camera)
        actions = self._env.action_spec()
        low, high = (
            np.where(np.abs(bound) < _UNBOUNDED, bound, np.sign(bound))
            for bound in (actions.minimum, actions.maximum)
        )
        self.action_space = Box(low, high, dtype=actions.dtype)
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
        # The camera returns a view of a buffer that the next frame overwrites.
        return self._camera.render().copy()

    def close(self) -> None:
        """Free the simulation and its OpenGL context."""
        self._env.physics.free()

    @cached_property
    def _camera(self) -> Camera:
        if problem := opengl().problem:
            raise RenderingError(problem)
        # In software a frame costs about 100 times its physics. A buffer of the image's size
        # instead of 640x480, and one camera instead of a new one per frame, give the same pixels
        # sooner (pendulum 22 -> 17 ms); without shadows they take 3 ms, but floors lose the
        # light's bright spot. The context that the camera creates reads these settings once.
        physics = self._env.physics
        physics.model.vis.global_.offwidth = physics.model.vis.global_.offheight = self._size
        if not self._shadows:
            physics.model.vis.quality.shadowsize = 0
        return Camera(physics, self._size, self._size, self._camera_id)


def _camera_id(task: str, env: Environment, asked: str | None) -> int:
    model = env.physics.model
    if asked is None:
        prefixes = (key for key in _CAMERAS if task.startswith(f"dmc_{key}"))
        return _CAMERAS.get(next(prefixes, ""), 0)
    ids = {model.id2name(number, "camera"): number for number in range(model.ncam)} | {"free": -1}
    known = ids | {str(number): number for number in ids.values()}
    if asked not in known:
        valid = ", ".join(f"{number} ({name})" for name, number in ids.items())
        raise ConfigError(f"--env.camera {asked}: {task} has {valid}")
    return known[asked]
