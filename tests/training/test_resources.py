"""The memory and disk that a run needs at most, by numbers worked out by hand."""

import shutil
from types import SimpleNamespace

import pytest

from dreamer_bird.config import load
from dreamer_bird.training.resources import (
    disk_bytes,
    image_bytes,
    introduction,
    replay_bytes,
    replay_steps,
)

FLAGS = {"steps": 100_000, "env.action_repeat": 2, "env.time_limit": 1000, "train.keep": 2}


def config(**flags):
    return load(FLAGS | {key.replace("__", "."): value for key, value in flags.items()})


def test_the_replay_holds_its_capacity_an_episode_at_least_and_no_more_than_the_run_has():
    assert replay_steps(config(replay__capacity=40_000)) == 40_000
    assert replay_steps(config(replay__capacity=300)) == 1000
    assert replay_steps(config(replay__capacity=10**6)) == 100_000
    assert replay_steps(config(replay__capacity="null")) == 100_000
    assert replay_bytes(config(replay__capacity=40_000), 10) == 40_000 / 2 * 10


def test_an_image_is_of_three_bytes_a_pixel_where_it_is_observed():
    assert image_bytes(config(env__size=32)) == 3 * 32 * 32
    assert image_bytes(config(obs="state")) == 0


def test_the_disk_holds_a_checkpoint_more_than_is_kept_and_the_episodes_that_those_need():
    flags = {"replay__capacity": 40_000, "train__save_every": 5000}
    episodes_between = 2 * 5000 / 2 * 10
    assert disk_bytes(config(**flags), 10, 7) == 200_000 + 3 * 7 + episodes_between
    flags["train__save_every"] = 100  # within an episode
    assert disk_bytes(config(**flags), 10, 7) == 200_000 + 3 * 7 + 2 * 1000 / 2 * 10
    # Three episodes come at once.
    assert disk_bytes(config(**flags, envs=3), 10, 7) == 200_000 + 3 * 7 + 2 * 3000 / 2 * 10
    # Saved after the second and the third episode of 1,000 steps, and the third and sixth.
    flags |= {"train__save_every": 1400, "train__keep": 1}
    assert disk_bytes(config(**flags), 10, 7) == 200_000 + 2 * 7 + 2000 / 2 * 10
    flags["train__save_every"] = 4000
    assert disk_bytes(config(**flags, envs=3), 10, 7) == 200_000 + 2 * 7 + 6000 / 2 * 10
    flags |= {"replay__capacity": "null", "train__keep": 2}  # nothing leaves the replay
    assert disk_bytes(config(**flags), 10, 7) == 500_000 + 3 * 7


@pytest.mark.parametrize(
    ("free", "written", "warnings"),
    [(10**9 - 1, 0, 1), (10**9, 0, 0), (10**9 - 9, 8, 1), (0, 10**9, 0)],
)
def test_a_disk_that_may_be_full_before_the_end_is_told(
    monkeypatch, tmp_path, recwarn, free, written, warnings
):
    for name in ("checkpoints", "episodes"):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "1.npz").open("wb") as file:
            file.truncate(written // 2)  # without taking the room
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    settings = config(replay__capacity="null")
    lines = list(introduction(settings, tmp_path, 20_000 - 3 * 20, 10**6))
    assert f"disk: at most 1.00 GB besides logs and videos; {free / 1e9:.1f} GB are free" in lines
    assert len(recwarn) == warnings
    assert all("the disk may be full" in str(each.message) for each in recwarn)


@pytest.mark.parametrize(
    ("flags", "random"),
    [
        ({"steps": 5000}, None),
        ({"steps": 4001}, None),
        ({"steps": 4000}, "5,000"),
        ({"steps": 4500, "env__action_repeat": 3}, "5,994"),  # of 999 steps each
        ({"steps": 8000, "train__prefill": 9}, "9,000"),
        ({"steps": 8001, "train__prefill": 9}, None),
        ({"steps": 5000, "train__prefill": 99, "task": "gym_CartPole-v1"}, None),
        ({"steps": 4999, "task": "gym_CartPole-v1"}, "5,000"),
    ],
)
def test_a_run_of_random_actions_alone_is_told(tmp_path, recwarn, flags, random):
    list(introduction(config(train__prefill_steps=5000, **flags), tmp_path, 1, 1))
    told = [str(each.message) for each in recwarn]
    words = f"nothing will be learned: the first {random} steps are random actions"
    assert told == [words] * (random is not None)
