"""Checkpoints: one npz file of named arrays and a JSON header, written atomically."""

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np

from dreamer_bird.errors import CheckpointError
from dreamer_bird.storage import Arrays, load_arrays, save_arrays

VERSION = 1
KEEP = 2
_HEADER = "header.json"


def save(directory: Path, step: int, arrays: Arrays, header: dict) -> Path:
    """Write the checkpoint of an environment step, then remove all but the last ones."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{step:010d}.npz"
    text = json.dumps({"version": VERSION, **header})
    save_arrays(path, {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays})
    for old in sorted(directory.glob("*.npz"))[:-KEEP]:
        old.unlink()
    return path


def load_latest(directory: Path) -> tuple[Arrays, dict] | None:
    """Return arrays and header of the newest readable checkpoint, None if there never was one.

    Warns of each damaged one that it passes over; raises CheckpointError if none can be read.
    """
    paths = sorted(directory.glob("*.npz"), reverse=True)
    for path in paths:
        try:
            return load(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            warnings.warn(
                f"checkpoint {path} is damaged ({error}); trying the one before", stacklevel=2
            )
    if paths:
        raise CheckpointError(
            f"no checkpoint in {directory} can be read: restore one from a backup, "
            "or choose another --logdir to start again"
        )
    return None


def load(path: Path) -> tuple[Arrays, dict]:
    """Return arrays and header of one file; CheckpointError if another version wrote it."""
    arrays = load_arrays(path)
    header = json.loads(bytes(arrays.pop(_HEADER)))
    if header["version"] != VERSION:
        raise CheckpointError(
            f"checkpoint {path} is of version {header['version']}, and this program reads {VERSION}"
        )
    return arrays, header
