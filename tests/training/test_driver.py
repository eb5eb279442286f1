"""Environments that take their steps together."""

import warnings
from functools import partial

import numpy as np
import pytest
from toy_envs import CountingEnv, shown

from dreamer_bird.config import load
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.training import driver
from dreamer_bird.training.driver import collect_episodes
from dreamer_bird.training.replay import Replay
from dreamer_bird.utils.timer import Stopwatch


def test_a_worker_is_waited_for_as_long_as_it_is_told(monkeypatch):
    monkeypatch.setattr(driver, "EnvWorker", lambda name, make, timeout=60.0: timeout)
    assert driver.start_worker(load({"worker.timeout": 3}), "x") == 3


@pytest.mark.parametrize("terminal", [False, True])
def test_action_image_and_reward_belong_together_through_worker_driver_and_replay(
    tmp_path, terminal
):
    rng = np.random.default_rng(0)

    def act(obs, state, t):
        assert obs["image"][0, 0, 0, 0] == t
        return rng.uniform(-1, 1, (1, 1)).astype(np.float32), None

    with EnvWorker("counting", partial(CountingEnv, 20, terminal)) as env:
        (collected,) = collect_episodes([env], act, [0], Stopwatch())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay = Replay(tmp_path, None, length=6)
        replay.add("1", collected)
        batch = replay.sample(40, np.random.default_rng(0))
    steps, actions = batch["image"][:, :, 0, 0, 0], batch["image"][:, :, 0, 1, 0]
    np.testing.assert_array_equal(batch["reward"], 10.0 * steps)
    np.testing.assert_array_equal(actions, shown(batch["action"]))
    np.testing.assert_array_equal(batch["discount"], np.where((steps == 20) & terminal, 0.0, 1.0))
    assert collected["action"][0] == 0 and len(collected["reward"]) == 21


def test_episodes_played_together_are_each_their_own(tmp_path):
    def act(obs, state, t):
        assert list(obs["image"][:, 0, 0, 0]) == [min(t, 4), t]  # the shorter one waits
        return np.array([[0.5], [-0.5]], np.float32), None

    lengths = (4, True), (7, False)
    workers = [EnvWorker(str(each), partial(CountingEnv, *each)) for each in lengths]
    with workers[0], workers[1]:
        episodes = collect_episodes(workers, act, [0, 1], Stopwatch(), film=True)
    for episode, (length, terminal), action in zip(episodes, lengths, (0.5, -0.5), strict=True):
        np.testing.assert_array_equal(episode["reward"], 10.0 * np.arange(length + 1))
        np.testing.assert_array_equal(episode["action"][:, 0], [0.0] + [action] * length)
        assert episode["discount"][-1] == (0.0 if terminal else 1.0)
        np.testing.assert_array_equal(episode["frame"], episode["image"])
