import threading
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from dreamer_bird.training.replay import EmptyReplayError, Replay, prefetched
from dreamer_bird.utils.files import DamagedFileError, load_arrays, save_arrays


def episode(steps, number=0):
    """An episode whose every row holds its number and its time."""
    time = np.arange(steps + 1)
    image = np.zeros((steps + 1, 2, 2, 3), np.uint8)
    image[:, 0, 0, 0], image[:, 0, 0, 1] = number, time
    return {
        "image": image,
        "action": time[:, None].astype(np.float32),
        "reward": (1000 * number + time).astype(np.float32),
        "discount": np.ones(steps + 1, np.float32),
    }


def starts(batch):
    """The (episode, time) at which each sequence of a batch starts."""
    return [(int(image[0, 0]), int(image[0, 1])) for image in batch["image"][:, 0, 0]]


@pytest.fixture
def replay(tmp_path):
    return Replay(tmp_path, None, length=4)


def test_sequences_are_uniform_over_all_starts_of_all_episodes_the_last_one_included(replay):
    lengths = {1: 5, 2: 3, 3: 11}  # agent steps; rows are one more
    for number, steps in lengths.items():
        replay.add(f"{number}", episode(steps, number))
    expected = {(n, t) for n, steps in lengths.items() for t in range(steps + 1 - 4 + 1)}
    draws = 24000
    counts = Counter(starts(replay.sample(draws, np.random.default_rng(0))))
    assert set(counts) == expected
    mean = draws / len(expected)
    assert max(abs(count - mean) for count in counts.values()) < 5 * mean**0.5


def test_joined_sequences_are_uniform_over_all_rows_and_say_where_episodes_begin(replay):
    lengths = {1: 5, 2: 1, 3: 2, 4: 9}  # two of them shorter than a sequence
    for number, steps in lengths.items():
        replay.add(f"{number}", episode(steps, number))
    rows = [(n, t) for n, steps in lengths.items() for t in range(steps + 1)]
    draws = 18000
    batch = replay.sample_joined(draws, np.random.default_rng(0))
    counts = Counter(starts(batch))
    assert set(counts) == set(rows[: len(rows) - 4 + 1])
    mean = draws / len(counts)
    assert max(abs(count - mean) for count in counts.values()) < 5 * mean**0.5
    for sequence, (number, time) in enumerate(starts(batch)[:200]):
        at = rows.index((number, time))
        expected = rows[at : at + 4]
        drawn = batch["reward"][sequence]
        np.testing.assert_array_equal(drawn, [1000 * n + t for n, t in expected])
        np.testing.assert_array_equal(batch["first"][sequence], [t == 0 for _, t in expected])


def test_episodes_that_do_not_make_a_sequence_together(replay):
    replay.add("1", episode(2))
    with pytest.raises(EmptyReplayError, match="do not make 4 agent steps together"):
        replay.sample_joined(1, np.random.default_rng(0))
    replay.add("2", episode(1))
    assert replay.sample_joined(1, np.random.default_rng(0))["reward"].shape == (1, 4)


def test_rows_of_a_sequence_follow_each_other_in_one_episode(replay):
    for number in (1, 2):
        replay.add(f"{number}", episode(6, number))
    batch = replay.sample(50, np.random.default_rng(0))
    numbers, times = batch["image"][:, :, 0, 0, 0], batch["image"][:, :, 0, 0, 1].astype(int)
    assert (numbers == numbers[:, :1]).all()
    assert (times == times[:, :1] + np.arange(4)).all()
    np.testing.assert_array_equal(batch["action"][..., 0], times)
    np.testing.assert_array_equal(batch["reward"], 1000.0 * numbers + times)


def test_the_oldest_episodes_leave_when_the_capacity_is_exceeded(tmp_path):
    replay = Replay(tmp_path, 20, length=4)
    for number in range(1, 6):
        replay.add(f"{number}", episode(7, number))
        assert replay.steps <= 20
    assert replay.names == ["4", "5"]
    assert {n for n, _ in starts(replay.sample(200, np.random.default_rng(0)))} == {4, 5}


def test_what_makes_a_sequence_stays_whatever_the_capacity(tmp_path):
    replay = Replay(tmp_path, 5, length=4)
    held = []
    for number, length in enumerate([9, 2, 1, 3, 8], 1):
        replay.add(f"{number}", episode(length, number))
        held.append("".join(replay.names))
        assert replay.sample_joined(1, np.random.default_rng(0))["reward"].shape == (1, 4)
    assert held == ["1", "12", "123", "34", "5"]


def test_the_same_generator_state_draws_the_same_sequences(replay):
    replay.add("1", episode(40, 1))
    first, same, other = (
        starts(replay.sample(8, np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert first == same != other


def test_an_episode_shorter_than_a_sequence_is_never_drawn_from(replay):
    replay.add("1", episode(2, 1))
    with pytest.raises(EmptyReplayError, match="4 agent steps"):
        replay.sample(1, np.random.default_rng(0))
    replay.add("2", episode(3, 2))
    assert set(starts(replay.sample(20, np.random.default_rng(0)))) == {(2, 0)}


def test_episodes_come_back_from_disk_as_they_were(tmp_path, replay):
    for number in (1, 2):
        replay.add(f"{number}", episode(6, number))
    again = Replay(tmp_path, None, length=4)
    again.load(replay.names)
    first, second = (r.sample(30, np.random.default_rng(3)) for r in (replay, again))
    for key, value in first.items():
        assert second[key].dtype == value.dtype
        np.testing.assert_array_equal(second[key], value)


@pytest.mark.parametrize(
    "damage",
    ["torn", "empty", "other arrays", "not uint8", "flat", "larger", "shorter", "missing"],
)
def test_a_damaged_episode_is_set_aside_and_the_others_are_used(tmp_path, replay, damage):
    for number in (1, 2):
        replay.add(f"{number}", episode(6, number))
    path = tmp_path / "1.npz"
    content = path.read_bytes()
    if damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other arrays":
        np.savez(path, image=np.zeros((3, 2, 2, 3), np.uint8))
    elif damage == "not uint8":
        np.savez(path, **(episode(6) | {"image": np.zeros((7, 2, 2, 3), np.float32)}))
    elif damage == "flat":
        np.savez(path, **(episode(6) | {"image": np.zeros((7, 12), np.uint8)}))
    elif damage == "larger":
        np.savez(path, **(episode(6) | {"image": np.zeros((7, 4, 4, 3), np.uint8)}))
    elif damage == "shorter":
        np.savez(path, **(episode(6) | {"reward": np.zeros(6, np.float32)}))
    else:
        path.unlink()
    again = Replay(tmp_path, None, length=4)
    with pytest.warns(UserWarning, match=r"1\.npz"):
        # An episode is compared with those before it.
        again.load(["2", "1"] if damage == "larger" else ["1", "2"])
    assert again.names == ["2"]
    assert (tmp_path / "damaged" / "1.npz").exists() == (damage != "missing")


def test_no_partial_file_is_left(tmp_path, replay):
    replay.add("1", episode(6, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["1.npz"]


def test_an_episode_is_not_damaged_where_python_cannot_decompress_it(tmp_path, replay, monkeypatch):
    replay.add("1", episode(6, 1))
    monkeypatch.setattr("zipfile.zlib", None)  # as where Python was built without it
    with pytest.raises(RuntimeError, match="zlib"):
        Replay(tmp_path, None, length=4).load(["1"])
    assert [path.name for path in tmp_path.iterdir()] == ["1.npz"]


@pytest.mark.parametrize("compress", [False, True])
def test_any_damage_to_a_file_is_noticed_or_harmless(tmp_path, compress):
    """Flip bytes everywhere: what is read is what was written, or the file counts as damaged."""
    path, rng = tmp_path / "1.npz", np.random.default_rng(0)
    written = episode(6, 1)
    save_arrays(path, written, compress)
    content, whole = path.read_bytes(), 0
    for _ in range(1000):
        spoiled = bytearray(content)
        for position in rng.integers(len(content), size=rng.integers(1, 4)):
            spoiled[position] ^= int(rng.integers(1, 256))
        path.write_bytes(spoiled)
        try:
            read = load_arrays(path)
        except DamagedFileError:
            continue
        whole += read.keys() == written.keys()
        for key in read.keys() & written.keys():
            np.testing.assert_array_equal(read[key], written[key])
    assert 0 < whole < 1000


def test_files_that_nobody_needs_are_removed(tmp_path):
    replay = Replay(tmp_path, capacity=10, length=4)
    for number in range(1, 5):
        replay.add(f"{number:06d}-5", episode(5, number))
    (tmp_path / "000009-5.npz").write_bytes(b"PK")
    (tmp_path / "a_users_own.npz").write_bytes(b"PK")
    replay.remove_files(but={"000002-5"})
    assert replay.names == ["000003-5", "000004-5"]
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == {"000002-5", "000003-5", "000004-5", "a_users_own"}


def test_what_is_prefetched_comes_in_order():
    assert list(prefetched(lambda number: number**2, range(3, 8))) == [9, 16, 25, 36, 49]
    assert list(prefetched(lambda number: number, [])) == []


def test_the_next_is_made_while_one_is_used():
    made = {number: threading.Event() for number in range(3)}

    def make(number):
        made[number].set()
        return number, threading.current_thread()

    with closing(prefetched(make, range(3))) as numbers:
        number, thread = next(numbers)
        assert number == 0 and thread is not threading.current_thread()
        assert made[1].wait(10)
        assert not made[2].wait(0.2)  # one ahead, not all


def test_an_error_comes_where_its_value_would_have():
    def make(number):
        return 1 / (2 - number)

    numbers = prefetched(make, range(4))
    assert [next(numbers), next(numbers)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(numbers)


def test_leaving_a_prefetch_early_ends_the_thread():
    before = {*threading.enumerate()}
    with closing(prefetched(lambda number: number, range(100))) as numbers:
        next(numbers)
        assert len({*threading.enumerate()} - before) == 1
    assert not {*threading.enumerate()} - before
