"""Environments by name. Importing this package is cheap: it does not import the simulator."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from dreamer_bird.envs.custom import FACTORIES, Factory, make_own, register
from dreamer_bird.envs.tasks import (
    GAMES,
    OBSERVATIONS,
    TASKS,
    check_task,
    default_action_repeat,
    family,
    may_terminate,
)
from dreamer_bird.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium

__all__ = [
    "GAMES",
    "OBSERVATIONS",
    "TASKS",
    "check_task",
    "default_action_repeat",
    "environment",
    "make_env",
    "may_terminate",
    "register",
]


def environment(task: str, **settings: Any) -> Factory:
    """Return what an `EnvWorker` is made with: `make_env` of the task, with these settings.

    It knows the factory of a registered task, which the worker's process does not.
    """
    return partial(make_env, task, factory=FACTORIES.get(task), **settings)


def make_env(
    task: str,
    *,
    factory: Factory | None = None,
    obs: str = "pixels",
    action_repeat: int | None = None,
    time_limit: int = 1000,
    size: int = 64,
    shadows: bool = True,
) -> gymnasium.Env:
    """Make an environment whose observations `obs` selects, one of `OBSERVATIONS`.

    `time_limit` counts environment steps, so an episode has at most `time_limit // action_repeat`
    agent steps. `factory` makes an environment of the user's that `task` is but a name of, and
    `shadows` is heeded where MuJoCo draws. Raises `ConfigError` for a task that is unknown or
    cannot be observed like that, and `RenderingError` where pixels cannot be rendered. Call it in a
    process that does not import TensorFlow: with software OpenGL the two crash each other.
    """
    if factory is None:
        try:
            check_task(task)
        except ValueError as error:
            raise ConfigError(f"{task}: {error}") from None
    repeat = default_action_repeat(task) if action_repeat is None else action_repeat
    if factory is None and family(task) == "dmc":
        env = _control_suite(task, obs=obs, action_repeat=repeat, size=size, shadows=shadows)
    else:
        env = _adapted(task, factory, obs=obs, action_repeat=repeat, size=size, shadows=shadows)
    from gymnasium.wrappers import TimeLimit

    return TimeLimit(env, time_limit // repeat)


def _control_suite(task: str, *, obs: str, **settings: Any) -> gymnasium.Env:
    from dreamer_bird.envs.rendering import select_backend

    # dm_control reads the variable once, when it is imported.
    os.environ["MUJOCO_GL"] = select_backend(required=obs != "state")
    from dreamer_bird.envs.dmc import DeepMindControl

    _, domain, name = task.split("_", 2)
    return DeepMindControl(domain, name, obs=obs, **settings)


def _adapted(
    task: str, factory: Factory | None, *, obs: str, action_repeat: int, size: int, shadows: bool
) -> gymnasium.Env:
    from gymnasium.wrappers import TimeLimit

    from dreamer_bird.envs.adapter import Adapter
    from dreamer_bird.envs.checks import Checked
    from dreamer_bird.envs.rendering import NO_BACKEND, select_backend

    # Gymnasium reads it too where it uses MuJoCo; other environments may render without OpenGL.
    if (backend := select_backend(required=False)) != NO_BACKEND:
        os.environ["MUJOCO_GL"] = backend
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame's: it looks for a screen otherwise
    kind, limit = "own" if factory else family(task), None
    if kind == "own":
        env = make_own(task, factory)
    elif kind == "gym":
        from dreamer_bird.envs.gym import make_registered

        env, limit = make_registered(task, size, shadows)
    else:
        from dreamer_bird.envs.atari import Atari

        # It repeats actions itself, since what it shows comes of more than the last frame.
        env, action_repeat = Atari(task.removeprefix("atari_"), action_repeat), 1
    env = Checked(task, env)
    env = TimeLimit(env, limit) if limit else env
    return Adapter(task, env, obs=obs, action_repeat=action_repeat, size=size)
