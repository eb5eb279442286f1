"""Files that appear whole or not at all, and arrays kept in them without pickle."""

import os
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def save_arrays(path: Path, arrays: Arrays, compress: bool = False) -> None:
    """Write named arrays to an npz file, atomically and through to the disk."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_arrays(path: Path) -> Arrays:
    """Read named arrays; raises OSError, ValueError, KeyError or zipfile.BadZipFile if damaged."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}
