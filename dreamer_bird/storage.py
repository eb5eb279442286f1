"""Files that appear whole or not at all, arrays kept in them without pickle, and damaged ones."""

import os
from pathlib import Path

import numpy as np

from dreamer_bird.errors import RunError

Arrays = dict[str, np.ndarray]


class DamagedFileError(RunError):
    """A file that does not hold what was written to it."""


def save_arrays(path: Path, arrays: Arrays, compress: bool = False) -> None:
    """Write named arrays to an npz file, atomically and through to the disk."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_arrays(path: Path) -> Arrays:
    """Read named arrays; DamagedFileError if that cannot be done."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # zip, zlib, NumPy's header parser: each has errors of its own
        raise DamagedFileError(f"{path} cannot be read ({type(error).__name__})") from error


def set_aside(path: Path) -> Path:
    """Move a file into the folder `damaged` beside it, over no other file; return where it is."""
    folder = path.parent / "damaged"
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 1
    while target.exists():
        target, number = folder / f"{path.name}.{number}", number + 1
    return path.rename(target)
