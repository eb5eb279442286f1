"""Environments by their names in gymnasium's registry."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from dreamer_bird.envs.checks import one_line
from dreamer_bird.envs.custom import import_module_of
from dreamer_bird.errors import ConfigError


def make_registered(task: str, size: int, shadows: bool) -> tuple[gymnasium.Env, int | None]:
    """Make `gym_<EnvId>`; return it, and its limit to an episode in steps, which is not set yet.

    `gym_<package>:<EnvId>` imports the package first. It renders images if it can; MuJoCo draws
    them in `size`, with shadows if wanted. Raises `ConfigError`, in gymnasium's words, if there is
    no such environment.
    """
    package, _, env_id = task.removeprefix("gym_").rpartition(":")
    try:
        if package:
            import_module_of(package)
        spec = gymnasium.spec(env_id)
        creator = spec.entry_point
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        options = {"render_mode": "rgb_array"} if _renders(creator) else {}
        # To import the class would import the simulator.
        bases = getattr(creator, "__mro__", ())
        if uses_mujoco := any(base.__name__ == "MujocoEnv" for base in bases):
            options |= {"width": size, "height": size}
        env = gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError) as error:
        raise ConfigError(f"{task}: {one_line(error)}") from error
    if uses_mujoco and not shadows:
        # In software most of a frame's time, as is its size: half-cheetah 215 -> 29 ms for both.
        env.unwrapped.model.vis.quality.shadowsize = 0
    return env, spec.max_episode_steps


def _renders(creator: Callable[..., Any]) -> bool:
    if isinstance(creator, type):
        return "rgb_array" in creator.metadata.get("render_modes", ())
    return "render_mode" in inspect.signature(creator).parameters
