"""Environments by their names in gymnasium's registry."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from dreamer_bird.envs.custom import import_module_of, make_with


def make_registered(
    task: str, size: int, shadows: bool, arguments: Mapping[str, Any]
) -> gymnasium.Env:
    """Make `gym_<EnvId>`, or `gym_<package>:<EnvId>`, for which the package is imported first.

    `arguments` go to its constructor, which is asked to render, and if it is MuJoCo's to do so in
    `size`; shadows are drawn if wanted.
    """
    package, _, env_id = task.removeprefix("gym_").rpartition(":")
    if package:
        import_module_of(package)
    spec = gymnasium.spec(env_id)
    creator = spec.entry_point
    creator = load_env_creator(creator) if isinstance(creator, str) else creator
    # Elsewhere width and height may be those of a maze. To import the class would import MuJoCo.
    bases = (base.__name__ for base in getattr(creator, "__mro__", ()))
    sizes = [{"width": size, "height": size}] * ("MujocoEnv" in bases)
    make = partial(gymnasium.make, spec, disable_env_checker=True)
    env = make_with(make, arguments, *sizes)
    model = getattr(env.unwrapped, "model", None)
    if not shadows and hasattr(model, "vis"):
        # In software most of a frame's time, as is its size: half-cheetah 215 -> 29 ms for both.
        model.vis.quality.shadowsize = 0
    return env
