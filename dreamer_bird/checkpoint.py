"""Checkpoints: one npz file of named arrays and a JSON header, written atomically."""

import json
import warnings
from pathlib import Path

import numpy as np

from dreamer_bird.errors import CheckpointError
from dreamer_bird.storage import Arrays, DamagedFileError, load_arrays, save_arrays, set_aside

VERSION = 1
KEEP = 2
_HEADER = "header.json"


def save(directory: Path, step: int, arrays: Arrays, header: dict) -> Path:
    """Write the checkpoint of an environment step, then remove all but the last ones."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{step:010d}.npz"
    text = json.dumps({"version": VERSION, **header})
    save_arrays(path, {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays})
    others = sorted(other for other in directory.glob("*.npz") if other != path)
    for old in others[: 1 - KEEP]:
        old.unlink()
    return path


def load_latest(directory: Path) -> tuple[Arrays, dict] | None:
    """Return arrays and header of the newest readable checkpoint, None if there never was one.

    Sets aside, with a warning, each damaged one; raises CheckpointError if no other is left.
    """
    paths = sorted(directory.glob("*.npz"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except DamagedFileError as error:
            warnings.warn(f"{error}; it is kept as {set_aside(path)}", stacklevel=2)
    if paths or (directory / "damaged").exists():
        raise CheckpointError(
            f"no checkpoint in {directory} can be read: restore one from a backup, "
            "or choose another --logdir to start again"
        )
    return None


def load(path: Path) -> tuple[Arrays, dict]:
    """Return arrays and header of one file.

    Raises DamagedFileError, or CheckpointError if another version wrote it.
    """
    arrays = load_arrays(path)
    try:
        header = json.loads(bytes(arrays.pop(_HEADER)))
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} has no header that can be read") from error
    if version != VERSION:
        raise CheckpointError(
            f"checkpoint {path} is of version {version}, and this program reads {VERSION}"
        )
    return arrays, header
