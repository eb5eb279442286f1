"""Environments of the user's: functions that return them, by a name or by where they are."""

from __future__ import annotations

import os
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dreamer_bird.errors import ConfigError, nearest
from dreamer_bird.utils.processes import main_file

if TYPE_CHECKING:
    import gymnasium

Factory = Callable[..., "gymnasium.Env"]

FACTORIES: dict[str, Factory] = {}  # by the names that `register` was given, in this process


def register(name: str, factory: Factory) -> None:
    """Make `name` a task: `factory`, called in a worker process, returns a `gymnasium.Env`.

    It must be a function or class at the top level of a module or script, since the worker, which
    is another process, imports it by name. Raises `ConfigError` for one that is not, and for a
    name that is taken by a family of tasks or has other signs than letters, digits, _ and -.
    """
    if not re.fullmatch(r"[\w-]+", name) or re.match("(dmc|gym|atari)_", name):
        raise ConfigError(
            f"register({name!r}): a name has letters, digits, _ and - only, "
            "and does not begin with dmc_, gym_ or atari_"
        )
    try:
        pickle.dumps(factory)
        if getattr(factory, "__module__", "") == "__main__" and main_file() is None:
            raise TypeError
    except (pickle.PicklingError, AttributeError, TypeError):
        raise ConfigError(
            f"register({name!r}): {factory!r} cannot be sent to a worker process: "
            "it must be a function or class at the top level of a module or script, which is a file"
        ) from None
    FACTORIES[name] = factory


def import_module_of(name: str) -> ModuleType:
    """Import a module of the current folder, or one that is installed."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return import_module(name)


def read_kwargs(text: str) -> dict[str, Any]:
    """Return the arguments that JSON or YAML names; ValueError says what is wrong with it."""
    from ruamel.yaml import YAML, YAMLError

    try:
        arguments = YAML(typ="safe", pure=True).load(text)  # which reads JSON too
        named = isinstance(arguments, dict) and all(isinstance(key, str) for key in arguments)
        if named and not _lacks_a_space(arguments):
            return arguments
    except (YAMLError, ValueError, TypeError, LookupError, RecursionError):
        pass
    raise ValueError(
        "must be a mapping in JSON or YAML, with a space after each colon: "
        "'{goal: 3, noise: [0.1, 0.2]}'"
    )


def _lacks_a_space(value: object) -> bool:
    """Tell whether a mapping holds, at any depth, what YAML makes of {goal:3}: goal:3 is null."""
    if isinstance(value, list):
        return any(map(_lacks_a_space, value))
    items = value.items() if isinstance(value, dict) else ()
    return any((each is None and ":" in str(key)) or _lacks_a_space(each) for key, each in items)


def make_with(
    make: Callable[..., gymnasium.Env], arguments: Mapping[str, Any], *options: Mapping[str, Any]
) -> gymnasium.Env:
    """Call `make` with these arguments, the first of these options that it takes, and rendering."""
    for option in (*options, {}):
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make(**{"render_mode": "rgb_array", **option, **arguments})
    return make(**arguments)


def find_factory(task: str) -> Factory:
    """Return what the task `<module>:<factory>` names; `ConfigError` if there is no such thing."""
    module_name, _, name = task.partition(":")
    try:
        module = import_module_of(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # of something that the module needs: its traceback tells where
        raise ConfigError(f"{task}: there is no module {error.name}") from None
    if callable(factory := getattr(module, name, None)):
        return factory
    problem = f"{task}: {module_name} has no function or class {name}"
    if hasattr(module, name):
        problem = f"{task}: {name} is a {type(factory).__name__}, not a function or class"
    raise ConfigError(f"{problem}: {_factories(module, name)}")


def _factories(module: ModuleType, name: str) -> str:
    """Word which functions and classes of a module, or environments that it imports, are meant."""
    import gymnasium

    names = [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
        or (isinstance(value, type) and issubclass(value, gymnasium.Env))
    ]
    if not names:
        return "it defines none at all"
    return nearest(name, names)
