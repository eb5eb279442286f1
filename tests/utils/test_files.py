"""Faults of the file system: a file is as it was before, or whole."""

import errno
import os
import time
import zipfile

import numpy as np
import pytest

from dreamer_bird.errors import ConfigError
from dreamer_bird.utils.files import (
    DamagedFileError,
    WriteError,
    check_writable,
    load_arrays,
    nearest_existing,
    replacing,
    save_arrays,
)

OLD, NEW = {"x": np.arange(3)}, {"x": np.arange(5)}


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_refused_write_leaves_the_old_file_and_no_torn_one(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a.npz"
    save_arrays(path, OLD)
    with monkeypatch.context() as patch:
        target = "os.fsync" if call == "fsync" else "pathlib.Path.replace"
        patch.setattr(target, refusing(number))
        with pytest.raises(
            WriteError, match=f"{path}.*{os.strerror(number)}.*nothing saved before"
        ):
            save_arrays(path, NEW)
    assert [other.name for other in tmp_path.iterdir()] == ["a.npz"]
    np.testing.assert_array_equal(load_arrays(path)["x"], OLD["x"])
    save_arrays(path, NEW)
    np.testing.assert_array_equal(load_arrays(path)["x"], NEW["x"])


def test_a_folder_without_permission_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.open", refusing(errno.EACCES))
    with pytest.raises(WriteError, match="Permission denied"):
        save_arrays(tmp_path / "a.npz", NEW)


def test_a_write_that_is_interrupted_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def encrypted(content: bytes) -> bytes:
    """Set the flag in the entry of the central directory."""
    at = content.index(b"PK\1\2") + 8
    return content[:at] + b"\1" + content[at + 1 :]


@pytest.mark.parametrize("method", ["ZIP_BZIP2", "ZIP_LZMA", None])
def test_what_was_never_written_so_is_damaged(tmp_path, method):
    path = tmp_path / "a.npz"
    save_arrays(path, OLD)
    if method:
        with zipfile.ZipFile(path) as file:
            content = file.read("x.npy")
        with zipfile.ZipFile(path, "w", getattr(zipfile, method)) as file:
            file.writestr("x.npy", content)
    else:
        path.write_bytes(encrypted(path.read_bytes()))
    with pytest.raises(DamagedFileError, match="cannot be read"):
        load_arrays(path)


def test_an_array_of_which_a_part_would_fit_is_damaged(tmp_path):
    """One digit of the shape, in a file that is not compressed."""
    path = tmp_path / "a.npz"
    save_arrays(path, {"x": np.arange(5000)})
    path.write_bytes(path.read_bytes().replace(b"(5000,)", b"(3000,)"))
    with pytest.raises(DamagedFileError, match="cannot be read"):
        load_arrays(path)


def test_readers_see_the_old_file_while_a_slow_disk_takes_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_arrays(path, OLD)
    seen = []

    def slow(descriptor):
        time.sleep(0.05)
        seen.append(len(load_arrays(path)["x"]))

    monkeypatch.setattr("os.fsync", slow)
    save_arrays(path, NEW)
    assert seen == [3, 5]  # as the file is written, and as the folder is
    np.testing.assert_array_equal(load_arrays(path)["x"], NEW["x"])


def test_the_new_file_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr("os.fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda path, to: (order.append("rename"), replace(path, to))
    )
    save_arrays(tmp_path / "a.npz", NEW)
    assert order == ["fsync", "rename", "fsync"]


def test_where_something_is_or_can_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    for below, nearest in (("a/b", ""), ("file", "file"), ("file/a", "file"), ("link", "link")):
        assert nearest_existing(tmp_path / below) == tmp_path / nearest
    check_writable("--out", tmp_path / "a" / "b")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=f"^--out: {tmp_path / name} is not a folder$"):
            check_writable("--out", tmp_path / name / "a")
