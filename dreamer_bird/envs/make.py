"""Makes an environment from the name of its task.

Simulators are imported when an environment is made: a learner that only names one starts sooner.
"""

import os
from functools import partial
from numbers import Integral
from traceback import extract_tb
from typing import Any

import gymnasium

from dreamer_bird.envs.adapter import Adapter
from dreamer_bird.envs.checks import Checked, named, one_line
from dreamer_bird.envs.custom import FACTORIES, Factory, find_factory, make_with, read_kwargs
from dreamer_bird.envs.gym import make_registered
from dreamer_bird.envs.rendering import prepare_opengl
from dreamer_bird.envs.tasks import (
    EPISODE,
    check_task,
    default_action_repeat,
    default_time_limit,
    family,
)
from dreamer_bird.errors import ConfigError, RunError


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
    time_limit: int | None = None,
    size: int = 64,
    shadows: bool = True,
    camera: str | None = None,
    kwargs: str | None = None,
) -> gymnasium.Env:
    """Make an environment whose observations `obs` selects, one of `OBSERVATIONS`.

    `time_limit` counts environment steps, so an episode has at most `time_limit // action_repeat`
    agent steps; None leaves it to the environment. `factory` makes the environment if `task` is a
    registered name, `shadows` and `camera` are for what MuJoCo draws, and `kwargs` is text, as
    `read_kwargs` takes it, for its constructor. What is returned has `time_limit`, environment
    steps, and `notes`, lines on what a user may not expect.

    Raises `ConfigError` for a task that is unknown, cannot be made or cannot be observed like that.
    Call it in a process that does not import TensorFlow: with software OpenGL the two crash each
    other.
    """
    try:
        if factory is None:
            check_task(task)
        arguments = read_kwargs(kwargs) if kwargs else {}
    except ValueError as error:
        raise ConfigError(f"{task}: {error}") from None
    repeat = default_action_repeat(task) if action_repeat is None else action_repeat
    # Simulators read these when they are imported: their OpenGL, and the screen of pygame.
    prepare_opengl()
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    try:
        kind = family(task)
        if kind == "dmc":
            from dreamer_bird.envs.dmc import DeepMindControl

            env = DeepMindControl(task, size, shadows, camera, arguments)
        elif kind == "gym":
            env = make_registered(task, size, shadows, arguments)
        elif kind == "atari":
            from dreamer_bird.envs.atari import Atari

            env = Atari(task.removeprefix("atari_"), repeat, **arguments)
        else:
            env = make_with(factory or find_factory(task), arguments)
        return _adapt(task, env, obs, repeat, time_limit, size)
    except RunError:
        raise
    except (Exception, SystemExit) as error:  # whatever a constructor does
        raise ConfigError(f"{task}: {_told(error)}") from error


def _adapt(
    task: str, env: gymnasium.Env, obs: str, repeat: int, time_limit: int | None, size: int
) -> gymnasium.Env:
    """Return an environment as an agent sees it, with its limit and with what is to be told."""
    if not isinstance(env, gymnasium.Env):
        raise ConfigError(f"{task}: returned a {type(env).__name__} instead of a gymnasium.Env")
    name = "_max_episode_steps"  # as gymnasium's wrapper has it, which is part of many a factory
    limit = env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None
    limit = int(limit) if isinstance(limit, Integral) else None
    own = limit or default_time_limit(task)
    steps = time_limit or own or EPISODE
    if repeat > steps:
        raise ConfigError(f"{task}: --env.action_repeat {repeat}: an episode has {steps} steps")
    if limit:
        env.set_wrapper_attr(name, steps)
    notes, end = [], f"{task}: its episodes end at {steps:,} environment steps"
    if own and steps != own:
        notes.append(f"{end} by --env.time_limit, not at its own limit of {own:,}")
    if not (time_limit or own):
        notes.append(f"{end}, since it names no limit: --env.time_limit sets another")
    # Control tasks keep to their spaces, and their steps would take a third longer.
    if family(task) != "dmc":
        env = Checked(task, env)
    # An Atari game repeats actions itself, since what it shows comes of more than the last frame.
    repeats = 1 if family(task) == "atari" else repeat
    env = Adapter(task, env, obs=obs, action_repeat=repeats, size=size)
    notes += env.notes
    # The environment's own limit may fall within an agent step.
    agent_steps = steps // repeat if steps != limit else -(-steps // repeat)
    env = gymnasium.wrappers.TimeLimit(env, agent_steps)
    env.time_limit, env.notes = steps, notes
    return env


def _told(error: BaseException) -> str:
    """Word an error in one line; where it was raised, too, unless it is one of gymnasium's."""
    if isinstance(error, gymnasium.error.Error):
        return one_line(error)
    text = named(error) + ": --env.kwargs passes arguments on" * ("argument" in str(error))
    while error.__cause__ and error.__cause__.__traceback__:  # none where it was never raised
        error = error.__cause__
    place = extract_tb(error.__traceback__)[-1]
    return f"{text} ({place.filename}, line {place.lineno})"
