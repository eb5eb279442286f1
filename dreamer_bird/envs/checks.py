"""Environments that break their own spec are refused, and the field named."""

import inspect
from collections.abc import Mapping
from numbers import Real
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Dict, Tuple

from dreamer_bird.envs.rendering import RenderingError, opengl
from dreamer_bird.errors import ConfigError, RunError

_MOST = float(np.finfo(np.float32).max)
_ARRAY = np.ndarray | np.generic
_ROUNDING = 1e-6  # relative and absolute, at bounds


class Checked(gymnasium.Wrapper):
    """An environment whose every answer is held against its spaces and gymnasium's interface.

    What breaks them is refused in one line: with `ConfigError` until a first step is taken, with
    `RunError` from then on.
    """

    def __init__(self, task: str, env: gymnasium.Env):
        super().__init__(env)
        self._task, self._error = task, ConfigError
        for name in ("observation_space", "action_space"):
            space = getattr(env, name, None)
            if not isinstance(space, gymnasium.Space):
                self._refuse(f"{name} is {_kind(space)} instead of a gymnasium space")
        for name in ("reset", "step", "render", "close"):
            if not callable(method := getattr(env, name)):
                self._refuse(f"{name} is {_kind(method)} instead of a method")
        takes = inspect.signature(env.reset).parameters.values()
        if not any(word.name == "seed" or word.kind is word.VAR_KEYWORD for word in takes):
            self._refuse("reset() takes no seed: it is reset(self, *, seed=None, options=None)")

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Start an episode; return the observation, as it is, and what else is told."""
        result = self.env.reset(seed=seed, **({"options": options} if options else {}))
        if not (isinstance(result, tuple) and len(result) == 2):
            self._refuse(f"reset() returns {_kind(result)} instead of (observation, info)")
        self._refuse(flaw(self.observation_space, result[0]))
        return result

    def step(self, action: Any) -> tuple[Any, Real, bool, bool, dict]:
        """Take a step; return observation, reward, terminated, truncated, info, as they are."""
        self._error = RunError
        result = self.env.step(action)
        if not (isinstance(result, tuple) and len(result) == 5):
            self._refuse(
                f"step() returns {_kind(result)} instead of "
                "(observation, reward, terminated, truncated, info)"
            )
        observation, reward, *ends, _ = result
        self._refuse(flaw(self.observation_space, observation) or reward_flaw(reward))
        for name, end in zip(("terminated", "truncated"), ends, strict=True):
            if not isinstance(end, bool | np.bool_):
                self._refuse(f"{name} is {_kind(end)} instead of a bool")
        return result

    def render(self) -> np.ndarray:
        """Return an image of the present state, uint8 `[height, width, 3]`.

        Raises `RenderingError` where something is missing for that, else as for a broken answer.
        """
        mode = self.env.render_mode
        why = "" if mode == "rgb_array" else f"; its render_mode is {mode!r}, not 'rgb_array'"
        try:
            image = self.env.render()
        except DependencyNotInstalled as error:
            raise RenderingError(f"{self._task}: {one_line(error)}") from None
        except Exception as error:
            text = f"render() raises {named(error)}"
            if problem := opengl().problem:
                raise RenderingError(f"{self._task}: {text} ({problem})") from error
            raise self._error(f"{self._task}: {text}{why}") from error
        is_image = isinstance(image, _ARRAY) and image.dtype == np.uint8 and image.shape[2:] == (3,)
        if not (is_image and image.size):
            wanted = f"an image, uint8 (height, width, 3){why}"
            self._refuse(f"render() returns {_kind(image)} instead of {wanted}")
        return image

    def _refuse(self, reason: str) -> None:
        if reason:
            raise self._error(f"{self._task}: {reason}")


def flaw(space: gymnasium.Space, value: Any, name: str = "") -> str:
    """Say in what a value is not of its space, "" if it is; `name` is the path of the field."""
    title = f"observation {name!r}" if name else "observation"
    if isinstance(space, Dict | Tuple):
        return _container_flaw(space, value, name, title)
    if isinstance(space, Box):
        return _array_flaw(space, value, title)
    return "" if space.contains(value) else f"{title} is {one_line(value)}, not in {space}"


def reward_flaw(reward: Any) -> str:
    """Say why a reward cannot be learned from, "" if it can."""
    if not isinstance(reward, Real):
        return f"reward is {_kind(reward)} instead of a number"
    return "" if abs(reward) <= _MOST else f"reward is {reward}, not a finite float32"


def one_line(value: object) -> str:
    """Return the text of any object, without line breaks."""
    return " ".join(str(value).split())


def named(error: BaseException) -> str:
    """Return the kind of an error and its text, in one line."""
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def _container_flaw(space: Dict | Tuple, value: Any, name: str, title: str) -> str:
    if isinstance(space, Dict):
        if not isinstance(value, Mapping):
            return f"{title} is {_kind(value)} instead of a dictionary"
        lacking, unknown = space.keys() - value.keys(), value.keys() - space.keys()
        if keys := lacking or unknown:
            what = "lacks" if lacking else "has an unknown"
            return f"{title} {what} {', '.join(map(repr, sorted(keys, key=str)))}"
        parts = space.items()
    else:
        if not isinstance(value, tuple) or len(value) != len(space):
            return f"{title} is {_kind(value)} instead of a tuple of {len(space)}"
        parts = enumerate(space)
    prefix = f"{name}." if name else ""
    flaws = (flaw(part, value[key], f"{prefix}{key}") for key, part in parts)
    return next(filter(None, flaws), "")


def _array_flaw(box: Box, value: Any, title: str) -> str:
    if not isinstance(value, _ARRAY):
        return f"{title} is {_kind(value)} instead of an array"
    if (value.dtype, value.shape) != (box.dtype, box.shape):
        return f"{title} is {value.dtype} {value.shape} instead of {box.dtype} {box.shape}"
    if value.dtype.kind == "f":
        unfit = ~(np.abs(value.astype(np.float64)) <= _MOST)  # true for NaN as well
        if unfit.any():
            return f"{title}{_first(unfit)} is {value[unfit][0]!s}, not a finite float32"
    outside = (value < box.low) | (value > box.high)
    if outside.any() and value.dtype.kind == "f":
        inside = value.clip(box.low, box.high)
        outside &= ~np.isclose(value, inside, rtol=_ROUNDING, atol=_ROUNDING)
    if outside.any():
        wrong, low, high = (array[outside][0] for array in (value, box.low, box.high))
        return f"{title}{_first(outside)} is {wrong!s}, outside of [{low!s}, {high!s}]"
    return ""


def _first(mask: np.ndarray) -> str:
    """Return the index of the first true element, as one writes it; "" for a scalar."""
    index = np.argwhere(mask)[0]
    return f"[{', '.join(map(str, index))}]" if index.size else ""


def _kind(value: Any) -> str:
    if isinstance(value, _ARRAY):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"
