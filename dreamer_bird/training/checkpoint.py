"""Checkpoints: one npz file of named arrays and a JSON header, written atomically."""

import json
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from dreamer_bird.errors import CheckpointError
from dreamer_bird.utils.files import Arrays, DamagedFileError, load_arrays, save_arrays, set_aside

VERSION = 3
_HEADER = "header.json"


def save(directory: Path, step: int, arrays: Arrays, header: dict, keep: int) -> Path:
    """Write the checkpoint of an environment step, then remove all but the last `keep`."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{step:010d}.npz"
    text = json.dumps({"version": VERSION, **header})
    save_arrays(path, {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays})
    others = [other for other in newest_first(directory) if other != path]
    for old in others[keep - 1 :]:
        old.unlink()
    return path


def newest_first(directory: Path) -> list[Path]:
    """Return the files of all checkpoints in a folder; what users put beside them is not ours."""
    return sorted(directory.glob(f"{'[0-9]' * 10}.npz"), reverse=True)


def load_latest(directory: Path) -> tuple[Arrays, dict] | None:
    """Return arrays and header of the newest readable checkpoint, None if there never was one.

    Sets aside, with a warning, each damaged one; raises CheckpointError if no other is left.
    """
    paths = newest_first(directory)
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
    return arrays, _parse(path, arrays.pop(_HEADER, None))


def load_header(path: Path) -> dict:
    """Return the header of one file without reading the rest; raises what `load` raises."""
    return _parse(path, load_arrays(path, only=(_HEADER,)).get(_HEADER))


def named_episodes(directory: Path) -> set[str]:
    """Return the names of the episodes that the readable checkpoints in a folder need."""
    names = set()
    for path in newest_first(directory):
        with suppress(DamagedFileError):
            names |= set(load_header(path)["replay"])
    return names


def _parse(path: Path, text: np.ndarray | None) -> dict:
    try:
        header = json.loads(bytes(text))
        version = header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} has no header that can be read") from error
    if version != VERSION:
        raise CheckpointError(
            f"checkpoint {path} is of version {version}, and this program reads {VERSION}"
        )
    return header
