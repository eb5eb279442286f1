"""Videos, written without a program of the system's."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dreamer_bird.utils.files import replacing

FRAMES_PER_SECOND = 25  # of an episode
SIZE = 256  # pixels at least, of a video to look at: players blur what they enlarge themselves


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames `[T, H, W, 3]`, uint8, enlarged if small, as an mp4 or a GIF, atomically.

    Folders on the way are made where needed.
    """
    encode = encode_gif if path.suffix == ".gif" else _encode_mp4
    scale = -(-SIZE // frames.shape[1])
    if scale > 1:  # else it would be a copy
        frames = frames.repeat(scale, 1).repeat(scale, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(encode(frames, fps))


def encode_gif(frames: np.ndarray, fps: float) -> bytes:
    """Return frames `[T, H, W, 3]`, uint8, as a GIF that begins again at its end."""
    # One palette for all frames: one for each takes six times as long, a third of an evaluation.
    tall = Image.fromarray(frames.reshape(-1, *frames.shape[2:])).quantize()
    images = [Image.fromarray(rows) for rows in np.asarray(tall).reshape(frames.shape[:3])]
    for image in images:
        image.putpalette(tall.getpalette())
    file, duration = io.BytesIO(), 1000 / fps  # milliseconds a frame
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    return file.getvalue()


def _encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    import imageio.v3 as imageio

    return imageio.imwrite("<bytes>", frames, extension=".mp4", fps=fps)
