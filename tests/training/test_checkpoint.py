import errno
import io
import json

import numpy as np
import pytest

from dreamer_bird.errors import CheckpointError
from dreamer_bird.training import checkpoint
from dreamer_bird.utils.files import ReadError

ARRAYS = {"encoder/h1/kernel": np.arange(6.0).reshape(2, 3), "count": np.int64(7)}


def test_arrays_and_header_come_back(tmp_path):
    checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000, "replay": ["a", "b"]}, keep=2)
    arrays, header = checkpoint.load_latest(tmp_path)
    assert arrays.keys() == ARRAYS.keys()
    for key, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], value)
    assert header["step"] == 1000 and header["replay"] == ["a", "b"]


def test_there_is_none_in_a_new_directory(tmp_path):
    assert checkpoint.load_latest(tmp_path / "new") is None


def test_the_newest_counts_and_only_the_last_ones_are_kept(tmp_path):
    for step in (900, 10000, 2000, 30000):
        checkpoint.save(tmp_path, step, ARRAYS, {"step": step}, keep=2)
    assert checkpoint.load_latest(tmp_path)[1]["step"] == 30000
    assert len(list(tmp_path.iterdir())) == 2


def test_episodes_that_any_of_them_names_are_named(tmp_path):
    for step, names in ((1000, ["a", "b"]), (2000, ["b", "c"]), (3000, ["c", "d"])):
        checkpoint.save(tmp_path, step, ARRAYS, {"replay": names}, keep=2)
    assert checkpoint.named_episodes(tmp_path) == {"b", "c", "d"}
    (tmp_path / "0000002000.npz").write_bytes(b"PK")
    assert checkpoint.named_episodes(tmp_path) == {"c", "d"}


@pytest.mark.parametrize("keep", [0, 1, 0.5, 0.99])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path, keep):
    checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000}, keep=2)
    path = checkpoint.save(tmp_path, 2000, ARRAYS, {"step": 2000}, keep=2)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else 1])
    with pytest.warns(UserWarning, match=r"damaged/0000002000\.npz"):
        assert checkpoint.load_latest(tmp_path)[1]["step"] == 1000


def test_saving_never_removes_what_was_loaded_or_is_being_written(tmp_path):
    good = checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000}, keep=2)
    for step in (2000, 3000):
        (tmp_path / f"{step:010d}.npz").write_bytes(b"PK")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert checkpoint.load_latest(tmp_path)[1]["step"] == 1000
    new = checkpoint.save(tmp_path, 1200, ARRAYS, {"step": 1200}, keep=2)
    assert sorted(tmp_path.glob("*.npz")) == [good, new]
    assert len(list((tmp_path / "damaged").iterdir())) == 2


def test_nothing_but_damaged_ones_is_an_error_that_says_what_to_do(tmp_path):
    checkpoint.save(tmp_path, 1000, ARRAYS, {}, keep=2).write_bytes(b"PK")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(CheckpointError, match="another --logdir"),
    ):
        checkpoint.load_latest(tmp_path)


def test_another_version_is_refused_by_name(tmp_path):
    path = tmp_path / "0000001000.npz"
    header = np.frombuffer(json.dumps({"version": 99}).encode(), np.uint8)
    np.savez(path, **{"header.json": header})
    with pytest.raises(CheckpointError, match="version 99"):
        checkpoint.load_latest(tmp_path)


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "0000001000.npz", evil=np.array([object()], dtype=object))
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(CheckpointError):
        checkpoint.load_latest(tmp_path)


def test_files_of_others_beside_them_are_left_alone(tmp_path):
    (tmp_path / "best.npz").write_bytes(b"PK")
    for step in (1000, 2000, 3000):
        checkpoint.save(tmp_path, step, ARRAYS, {"step": step}, keep=2)
    assert checkpoint.load_latest(tmp_path)[1]["step"] == 3000
    assert (tmp_path / "best.npz").exists() and len(list(tmp_path.iterdir())) == 3


def refusing(error):
    def refuse(*_, **__):
        raise error

    return refuse


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_one_that_cannot_be_read_now_stays_where_it_is(tmp_path, monkeypatch, error):
    path = checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000}, keep=2)
    monkeypatch.setattr("zipfile.ZipFile.read", refusing(error))
    with pytest.raises(ReadError, match=r"(Permission denied|not enough memory)"):
        checkpoint.load_latest(tmp_path)
    assert [path] == list(tmp_path.iterdir())


class Unreadable(io.FileIO):
    """A file on a disk that fails."""

    def read(self, *_):
        raise OSError(errno.EIO, "Input/output error")


def test_one_on_a_disk_that_fails_stays_where_it_is(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000}, keep=2)
    with monkeypatch.context() as patch:
        patch.setattr(io, "open", lambda path, mode: Unreadable(path))
        with pytest.raises(ReadError, match=r"cannot be read \(Input/output error\)"):
            checkpoint.load_latest(tmp_path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [TypeError, AttributeError, NameError, RuntimeError])
def test_a_fault_of_the_program_is_no_damage(tmp_path, monkeypatch, error):
    path = checkpoint.save(tmp_path, 1000, ARRAYS, {"step": 1000}, keep=2)
    monkeypatch.setattr("numpy.lib.format.read_array", refusing(error))
    with pytest.raises(error):
        checkpoint.load_latest(tmp_path)
    assert [path] == list(tmp_path.iterdir())
