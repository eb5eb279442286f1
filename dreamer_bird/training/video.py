"""Videos, written without a program of the system's."""

from pathlib import Path

import numpy as np

from dreamer_bird.utils.files import replacing

MP4_SIZE = 256  # pixels: players blur what they enlarge themselves


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames `[T, H, W, 3]`, uint8, as an mp4 (enlarged if small) or a GIF, atomically.

    Folders on the way are made where needed.
    """
    import imageio.v3 as imageio

    if path.suffix == ".gif":
        options = {"duration": 1000 / fps, "loop": 0}
    else:
        enlarge = ["-vf", f"scale={MP4_SIZE}:{MP4_SIZE}:flags=neighbor"]
        options = {"fps": fps, "output_params": enlarge}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(imageio.imwrite("<bytes>", frames, extension=path.suffix, **options))
