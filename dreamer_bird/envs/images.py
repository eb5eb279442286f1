"""What of an observation is an image, in the forms in which environments give them."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

_LEAST = 8  # pixels of a side, where the shape alone tells an image from a table of numbers
FORMS = "(height, width, 1 or 3), (height, width), or channel-first"


def kind_of(space: gymnasium.Space) -> str:
    """Return `image`, `stack` for what has the form of several, `text`, or `vector` for the rest.

    An image is uint8 or float in [0, 1], `[H, W, 1 or 3]`, `[H, W]` or `[1 or 3, H, W]`.
    """
    if space.dtype is not None and space.dtype.kind == "U":
        return "text"
    if not isinstance(space, Box) or not (space.dtype == np.uint8 or _is_of_unit(space)):
        return "vector"
    shape, large = space.shape, sum(side >= _LEAST for side in space.shape)
    is_whole = space.dtype == np.uint8 and len(shape) == 3  # as most environments give them
    if is_whole and shape[2] in (1, 3) and all(shape):
        return "image"
    if looks_like_image(space) or (large == 2 and len(shape) == 2):
        return "image"
    return "stack" if is_whole or (large >= 2 and len(shape) > 2) else "vector"


def looks_like_image(space: gymnasium.Space) -> bool:
    """Tell whether a vector has the shape of an image in colour or grey, but not its numbers."""
    if not isinstance(space, Box) or len(space.shape) != 3:
        return False
    large = sum(side >= _LEAST for side in space.shape)
    return large == 2 and (space.shape[2] in (1, 3) or space.shape[0] in (1, 3))


def as_image(array: np.ndarray) -> np.ndarray:
    """Return an image in any of its forms as uint8 `[H, W, 1 or 3]`."""
    if array.dtype != np.uint8:
        array = np.rint(255 * array.clip(0, 1)).astype(np.uint8)
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        array = np.moveaxis(array, 0, 2)
    return np.atleast_3d(array)


def _is_of_unit(box: Box) -> bool:
    return box.dtype.kind == "f" and bool(np.all(box.low >= 0) and np.all(box.high <= 1))
