"""Files that appear whole or not at all, arrays in them without pickle, and where they can go."""

import errno
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dreamer_bird.errors import ConfigError, RunError

PARTIAL = ".partial"

# What zipfile says of a file that is broken, and NumPy of an array that is not one of numbers.
# Anything else, a module that is missing or a mistake in a program, says nothing of the file.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, zlib.error, struct.error)
_BROKEN += (EOFError, ValueError, OverflowError)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNREADABLE = 0x61  # the flags of encryption, patches and strong encryption

Arrays = dict[str, np.ndarray]


class DamagedFileError(RunError):
    """A file that does not hold what was written to it."""


class ReadError(RunError):
    """A file that the system does not let us read now; it may be in perfect order."""


class WriteError(RunError):
    """A file that could not be written, on a full disk, say; what was there before is intact."""

    def __init__(self, path: Path, error: OSError):
        """Name the file and the system's reason."""
        super().__init__(
            f"cannot write {path} ({error.strerror}); nothing saved before is lost: mend that and "
            "run the same command again"
        )


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write a file into a WriteError that names it."""
    try:
        yield
    except OSError as error:
        raise WriteError(path, error) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of `path` once it is whole and on the disk, or never.

    Raises WriteError where the system refuses.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with write_errors(path), partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with write_errors(path):
            partial.replace(path)
            _sync_folder(path.parent)  # the new name, too, must survive a power cut
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def save_arrays(path: Path, arrays: Arrays, compress: bool = False) -> None:
    """Write named arrays to an npz file, atomically and through to the disk."""
    with replacing(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **arrays)


def load_arrays(path: Path, only: Collection[str] | None = None) -> Arrays:
    """Read named arrays, all or `only` some.

    Raises DamagedFileError, or ReadError where it is the system that refuses.
    """
    try:
        with zipfile.ZipFile(path) as file:
            named = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}
            return {key: _read(file, named[key]) for key in named if only is None or key in only}
    except (*_BROKEN, OSError, MemoryError) as error:
        # zipfile calls a file bad whose end the system does not let it read, too.
        reason = error.__context__ if isinstance(error, zipfile.BadZipFile) else error
        # A torn file may ask for a place before its start, which the system calls invalid.
        if isinstance(reason, OSError) and reason.errno != errno.EINVAL:
            raise ReadError(f"{path} cannot be read ({reason.strerror})") from error
        if isinstance(error, MemoryError) and _is_whole(path):
            raise ReadError(f"{path} cannot be read (not enough memory)") from error
        raise DamagedFileError(f"{path} cannot be read ({type(error).__name__})") from error


def nearest_existing(path: Path) -> Path:
    """Return the path where something is there, else the nearest folder above that exists."""
    path = path.absolute()
    # Even a link to nothing is in the way of a folder.
    return next(each for each in (path, *path.parents) if os.path.lexists(each))


def check_writable(name: str, folder: Path) -> None:
    """Refuse a folder in which no files can be made, gs://bucket/x and the like too; make nothing.

    Raises ConfigError, whose line begins with `name`.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:(/|$)", str(folder)):
        told = "must be a folder, not a URL: mount what it names, and name where"
        raise ConfigError(f"{name}: {told}")
    existing = nearest_existing(folder)
    if not existing.is_dir():
        raise ConfigError(f"{name}: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"{name}: no permission to write in {existing}")


def set_aside(path: Path) -> Path:
    """Move a file into the folder `damaged` beside it, over no other file; return where it is."""
    folder = path.parent / "damaged"
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 1
    while target.exists():
        target, number = folder / f"{path.name}.{number}", number + 1
    return path.rename(target)


def _read(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """Return an array, of which NumPy sees nothing before its checksum is right."""
    if entry.compress_type not in _METHODS or entry.flag_bits & _UNREADABLE:
        raise zipfile.BadZipFile(f"{entry.filename} is not as it was written")
    return np.lib.format.read_array(io.BytesIO(file.read(entry)), allow_pickle=False)


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (*_BROKEN, OSError):
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
