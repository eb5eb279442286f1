"""Makes an environment from the name of its task.

What simulates is imported in functions: a learner that only names tasks does not wait for it.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from dreamer_bird.envs.custom import FACTORIES, Factory, make_custom
from dreamer_bird.envs.tasks import check_task, default_action_repeat, family
from dreamer_bird.errors import ConfigError

if TYPE_CHECKING:
    import gymnasium


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
    agent steps. `factory` makes the environment if `task` is a registered name, and `shadows` is
    for what MuJoCo draws. Raises `ConfigError` for a task that is unknown or cannot be observed
    like that, and `RenderingError` where pixels cannot be rendered. Call it in a process that does
    not import TensorFlow: with software OpenGL the two crash each other.
    """
    if factory is None:
        try:
            check_task(task)
        except ValueError as error:
            raise ConfigError(f"{task}: {error}") from None
    from gymnasium.wrappers import TimeLimit

    from dreamer_bird.envs.adapter import Adapter
    from dreamer_bird.envs.checks import Checked

    # Here, since `python -m dreamer_bird.envs.rendering` must find it not yet imported.
    from dreamer_bird.envs.rendering import NO_BACKEND, select_backend

    kind = "custom" if factory else family(task)
    repeat = default_action_repeat(task) if action_repeat is None else action_repeat
    # Simulators read these when they are imported: their OpenGL, and the screen of pygame.
    backend = select_backend(required=kind == "dmc" and obs != "state")
    if kind == "dmc" or backend != NO_BACKEND:  # a word of dm_control's that gymnasium lacks
        os.environ["MUJOCO_GL"] = backend
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    env, limit = _make_raw(kind, task, factory, repeat, size, shadows)
    if kind != "dmc":  # which keeps to its spaces, and whose steps would take a third longer
        env = Checked(task, env)
    env = TimeLimit(env, limit) if limit else env
    # An Atari game repeats actions itself, since what it shows comes of more than the last frame.
    repeats = 1 if kind == "atari" else repeat
    env = Adapter(task, env, obs=obs, action_repeat=repeats, size=size)
    return TimeLimit(env, time_limit // repeat)


def _make_raw(
    kind: str, task: str, factory: Factory | None, action_repeat: int, size: int, shadows: bool
) -> tuple[gymnasium.Env, int | None]:
    """Return an environment of a family, and its own limit to an episode, which is not set yet."""
    if kind == "dmc":
        from dreamer_bird.envs.dmc import DeepMindControl

        return DeepMindControl(task, size, shadows), None
    if kind == "gym":
        from dreamer_bird.envs.gym import make_registered

        return make_registered(task, size, shadows)
    if kind == "atari":
        from dreamer_bird.envs.atari import Atari

        return Atari(task.removeprefix("atari_"), action_repeat), None
    return make_custom(task, factory), None
