"""Tasks of the DeepMind Control Suite, observed as pixels, state or both."""

import os
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from absl import logging
from dm_control import suite
from dm_control.mujoco import Camera
from dm_control.rl.control import Environment
from dm_env import TimeStep
from gymnasium.spaces import Box, Dict

from dreamer_bird.envs.rendering import NO_BACKEND, NOT_FOUND, RenderingError
from dreamer_bird.envs.spaces import checked_action
from dreamer_bird.envs.tasks import OBSERVATIONS

_DOMAINS = {"cup": "ball_in_cup"}
_CAMERAS = {"quadruped": 2}  # Follows the robot; camera 0 of the other domains does so already.


class DeepMindControl(gymnasium.Env):
    """A task with actions in [-1, 1], each repeated `action_repeat` times.

    Observes, as `obs` says, `image` uint8 `[size, size, 3]` through a camera, and `state`, a
    float32 vector of all that the task observes. Has no time limit of its own.
    """

    render_mode = "rgb_array"

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        obs: str = "pixels",
        action_repeat: int = 2,
        size: int = 64,
        shadows: bool = True,
    ):
        self._env = _load(_DOMAINS.get(domain, domain), task)
        self._action_repeat = action_repeat
        rate = round(1 / (self._env.control_timestep() * action_repeat))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": rate}
        self._make_camera = partial(
            _camera, self._env, _CAMERAS.get(domain, 0), size=size, shadows=shadows
        )
        self._camera: Camera | None = None
        spec = self._env.action_spec()
        # The bounds are not [-1, 1] everywhere: the quadruped's reach 1.1.
        self._center = (spec.maximum + spec.minimum) / 2
        self._half_range = (spec.maximum - spec.minimum) / 2
        self.action_space = Box(-1.0, 1.0, spec.shape, np.float32)
        observed = self._env.observation_spec().values()
        length = sum(int(np.prod(array.shape)) for array in observed)
        spaces = {
            "image": Box(0, 255, (size, size, 3), np.uint8),
            "state": Box(-np.inf, np.inf, (length,), np.float32),
        }
        self._observed = OBSERVATIONS[obs]
        self.observation_space = Dict({key: spaces[key] for key in self._observed})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; given a seed in [0, 2**32), it depends on seed and actions alone."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed)
        return self._observe(self._env.reset()), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Repeat an action `[A]`, sum the rewards and observe once.

        `info["env_steps"]` counts the repetitions. Raises `ValueError` for an action that is not in
        the action space, rounding aside.
        """
        control = self._center + self._half_range * checked_action(self.action_space, action)
        reward, env_steps = 0.0, 0
        for _ in range(self._action_repeat):
            timestep = self._env.step(control)
            env_steps += 1
            reward += float(timestep.reward)
            if timestep.last():
                break
        terminated = timestep.last() and timestep.discount == 0
        truncated = timestep.last() and not terminated
        info = {"env_steps": env_steps}
        return self._observe(timestep), reward, terminated, truncated, info

    def render(self) -> np.ndarray:
        """Return an image of the present state, or raise `RenderingError` without OpenGL."""
        if self._image is None:
            if self._camera is None:
                if os.environ.get("MUJOCO_GL") == NO_BACKEND:
                    raise RenderingError(NOT_FOUND)
                self._camera = self._make_camera()
            # The camera returns a view of a buffer that the next frame overwrites.
            self._image = self._camera.render().copy()
        return self._image

    def close(self) -> None:
        """Free the simulation and its OpenGL context."""
        self._env.physics.free()

    def _observe(self, timestep: TimeStep) -> dict[str, np.ndarray]:
        self._image: np.ndarray | None = None
        observation = {}
        if "image" in self._observed:
            observation["image"] = self.render()
        if "state" in self._observed:
            values = [np.ravel(value) for value in timestep.observation.values()]
            observation["state"] = np.concatenate(values).astype(np.float32)
        return observation


def _load(domain: str, task: str) -> Environment:
    # The suite's own models use deprecated MJCF, about which a user can do nothing.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return suite.load(domain, task, task_kwargs={"time_limit": float("inf")})
    finally:
        logging.set_verbosity(verbosity)


def _camera(env: Environment, camera: int, size: int, shadows: bool) -> Camera:
    # In software a frame costs about 100 times its physics. A buffer of the image's size instead of
    # 640x480, and one camera instead of a new one per frame, give the same pixels sooner (pendulum
    # 22 -> 17 ms, cheetah 31 -> 24 ms; best of 40 frames, 2 cores). Most of the rest is the shadow
    # map of 2048x2048; without it they take 3 and 7 ms, but floors lose the light's bright spot as
    # well (mean change from 0.5 of 255 on cartpole to 23 on reacher).
    # The context that the camera creates reads these settings once.
    visual = env.physics.model.vis
    visual.global_.offwidth = visual.global_.offheight = size
    if not shadows:
        visual.quality.shadowsize = 0
    return Camera(env.physics, size, size, camera)
