"""Any gymnasium environment as an agent sees it: image and state, bounded or one-hot actions."""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import getitem

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.spaces.utils import flatdim, flatten
from PIL import Image

from dreamer_bird.envs.images import FORMS, as_image, kind_of, looks_like_image
from dreamer_bird.envs.spaces import ENV_STEPS, OneHot, checked_action
from dreamer_bird.envs.tasks import OBSERVATIONS
from dreamer_bird.errors import ConfigError
from dreamer_bird.utils.files import Arrays

Path = tuple[str | int, ...]  # of a field in nested observations
_FLAT = Box, Discrete, MultiBinary, MultiDiscrete
_VALID = "valid are Box, Discrete, MultiBinary, MultiDiscrete, and Dict and Tuple of them"


class Adapter(gymnasium.Env):
    """An environment that repeats actions `[A]` and observes `image` and `state`, as `obs` says.

    `image`, uint8 `[size, size, 3]`, is the one that the environment observes (`images.kind_of`),
    else what it renders; `state`, float32 `[S]`, is all else that it observes, flattened, without
    text. `notes` are lines on what of that a user may not expect. Raises `ConfigError` for spaces
    that do not allow it.
    """

    # What gymnasium asks of a class; whether it can render is found out by trying.
    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, task: str, env: gymnasium.Env, *, obs: str, action_repeat: int, size: int):
        """Take an environment that keeps to its spaces, as one that is `Checked`."""
        self._env, self._action_repeat, self._size = env, action_repeat, size
        self.action_space, self._raw_action = _adapt_actions(task, env.action_space)
        if not self.action_space.shape[0]:
            raise ConfigError(f"{task}: its actions {env.action_space} have no elements")
        self._wanted = OBSERVATIONS[obs]
        self._fields = {"image": {}, "stack": {}, "text": {}, "vector": {}}
        for path, space in _fields(env.observation_space):
            self._fields[kind_of(space)][path] = space
        images, self._vectors = self._fields["image"], self._fields["vector"]
        self._image_path = next(iter(images), None)
        if reason := self._why_not():
            raise ConfigError(f"{task}: --obs {obs}: {reason}")
        self.notes = [f"{task}: {note}" for note in self._notes()]
        spaces = {}
        if "image" in self._wanted:
            spaces["image"] = Box(0, 255, (size, size, 3), np.uint8)
        if "state" in self._wanted:
            length = sum(map(flatdim, self._vectors.values()))
            if not length:
                raise ConfigError(f"{task}: --obs {obs}: what it observes has no elements")
            spaces["state"] = Box(-np.inf, np.inf, (length,), np.float32)
        self.observation_space = Dict(spaces)
        self._image: np.ndarray | None = None  # of the present state, once it is rendered

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Arrays, dict]:
        """Start an episode; given a seed, it depends on seed and actions alone."""
        super().reset(seed=seed)
        self._observed, info = self._env.reset(seed=seed, options=options)
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[Arrays, float, bool, bool, dict]:
        """Repeat an action `[A]` until the episode ends, sum the rewards and observe once.

        `info[ENV_STEPS]` counts the environment steps. Raises `ValueError` for an action that is
        not in the action space, rounding aside.
        """
        raw_action = self._raw_action(checked_action(self.action_space, action))
        total, env_steps = 0.0, 0
        for _ in range(self._action_repeat):
            self._observed, reward, *ends, info = self._env.step(raw_action)
            total += float(reward)
            info = info if isinstance(info, Mapping) else {}
            env_steps += info.get(ENV_STEPS, 1)
            if any(ends):
                break
        return self._observe(), total, *map(bool, ends), {**info, ENV_STEPS: env_steps}

    def render(self) -> np.ndarray:
        """Return an image of the present state, uint8 `[size, size, 3]`.

        Raises `RenderingError` where the environment or the machine cannot.
        """
        if self._image is None:
            if self._image_path is None:
                image = self._env.render()
            else:
                image = as_image(reduce(getitem, self._image_path, self._observed))
            size = self._size, self._size
            if image.shape[:2] != size:
                whole = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
                image = np.asarray(whole.resize(size, Image.Resampling.BILINEAR))
            self._image = np.array(np.broadcast_to(np.atleast_3d(image), (*size, 3)))
        return self._image

    def close(self) -> None:
        """Free what the environment holds."""
        self._env.close()

    def _observe(self) -> Arrays:
        self._image = None
        observation = {}
        if "image" in self._wanted:
            try:
                observation["image"] = self.render()
            except ConfigError as error:  # before the first step
                raise ConfigError(f"{error}{': --obs state' * bool(self._vectors)}") from error
        if "state" in self._wanted:
            values = [
                flatten(space, reduce(getitem, path, self._observed))
                for path, space in self._vectors.items()
            ]
            observation["state"] = np.concatenate(values).astype(np.float32)
        return observation

    def _why_not(self) -> str:
        """Say why what is wanted cannot be observed, "" if it can."""
        images, stacks = self._fields["image"], self._fields["stack"]
        if "image" in self._wanted or not self._vectors:
            for path, space in stacks.items():
                return (
                    f"{_title(path)} is {space.dtype} {space.shape}: an image is {FORMS}; a stack "
                    "of frames is undone, or flattened, in a factory (docs/environments.md)"
                )
        if "image" in self._wanted and len(images) > 1:
            return f"{' and '.join(map(_title, images))} are images: one is the most"
        if "state" in self._wanted and not self._vectors:
            if images:
                return "observes an image and nothing else: --obs pixels"
            for path in self._fields["text"]:
                return f"{_title(path)} is text: {_VALID}"
            return f"observation_space {self._env.observation_space} is empty: {_VALID}"
        for path, space in self._vectors.items():
            if "state" in self._wanted and not isinstance(space, _FLAT):
                return f"{_title(path)} is a {type(space).__name__}: {_VALID}"
        return ""

    def _notes(self) -> Iterator[str]:
        """Yield what of the observations is not what it seems to be, or is left out."""
        images, stacks = self._fields["image"], self._fields["stack"]
        for path, space in images.items():
            if "image" in self._wanted and (space.dtype, space.shape[-1]) != (np.uint8, 3):
                yield f"{_title(path)}, {space.dtype} {space.shape}, is seen as an image"
        for path, space in self._vectors.items():
            if looks_like_image(space):
                what = f"{_title(path)}, {space.dtype} {space.shape}, is no image"
                yield f"{what}, which is uint8 or of a Box with bounds within [0, 1]"
        if "state" in self._wanted:
            for path in self._fields["text"]:
                yield f"{_title(path)} is text and left out"
        if "image" not in self._wanted:
            for path in images | stacks:
                yield f"{_title(path)} is an image and left out"


def _adapt_actions(
    task: str, space: gymnasium.Space
) -> tuple[Box, Callable[[np.ndarray], np.ndarray | np.integer]]:
    """Return the space in which an agent acts, and what makes an action of it the environment's."""
    if isinstance(space, Discrete):
        return OneHot(int(space.n)), lambda action: space.start + np.argmax(action)
    if not isinstance(space, Box):
        raise ConfigError(f"{task}: action_space is {space}: valid are Box and Discrete")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    for index in np.argwhere(~np.isfinite(high - low)):
        name = f"action_space[{', '.join(map(str, index))}]"
        bounds = f"[{low[tuple(index)]}, {high[tuple(index)]}]"
        raise ConfigError(f"{task}: {name} has the bounds {bounds}: both must be finite")
    center, half_range = (high + low) / 2, (high - low) / 2

    def raw_action(action: np.ndarray) -> np.ndarray:
        values = center + half_range * action.reshape(space.shape)
        if np.issubdtype(space.dtype, np.integer):
            values = np.rint(values)
        return values.clip(low, high).astype(space.dtype)

    return Box(-1.0, 1.0, (low.size,), np.float32), raw_action


def _fields(space: gymnasium.Space, path: Path = ()) -> Iterator[tuple[Path, gymnasium.Space]]:
    """Yield what an observation consists of, with its path through the dictionaries and tuples."""
    if isinstance(space, Dict | Tuple):
        parts = space.items() if isinstance(space, Dict) else enumerate(space)
        for key, part in parts:
            yield from _fields(part, (*path, key))
    else:
        yield path, space


def _title(path: Path) -> str:
    return f"observation {'.'.join(map(str, path))!r}" if path else "observation"
