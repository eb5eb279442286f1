"""A trained policy in programs of one's own, and outside this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import command

import dreamer_bird
from dreamer_bird.errors import ConfigError
from dreamer_bird.evaluate import build_agent, read_snapshot

PACKAGE = Path(dreamer_bird.__file__).parents[1]
FLAGS = ["--configs", "debug", "--task", "dmc_cartpole_balance", "--obs", "state", "--steps", "60"]
FLAGS += [
    "--env.time_limit",
    "20",
    "--train.prefill",
    "2",
    "--train.updates",
    "1",
    "--actor.init_std",
    "0.5",
]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("library") / "run"
    assert command("train", *FLAGS, "--logdir", logdir).returncode == 0
    return logdir


@pytest.fixture(scope="module")
def policy(logdir):
    return dreamer_bird.load(logdir)


def states(count):
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


def play(policy, observations, explore=False):
    actions, state = [], None
    for obs in observations:
        action, state = policy(obs, state, explore)
        actions.append(action)
    return np.stack(actions)


def test_it_acts_as_the_agent_of_the_run(policy, logdir):
    agent, obs = build_agent(read_snapshot(logdir)), states(1)[0]
    action, state = policy({"state": obs})
    latent, _ = agent.act({"state": obs[None]}, None, np.zeros(2, np.int32), False)[1]
    np.testing.assert_array_equal(state[0][0]["mean"], latent["mean"])
    assert action.shape == (1,) and action.dtype == np.float32 and np.abs(action) <= 1


def test_an_episode_follows_from_its_observations_and_the_seed(policy, logdir):
    actions = play(policy, states(5))
    np.testing.assert_array_equal(play(policy, states(5)), actions)
    assert len(np.unique(actions)) == 5
    other = dreamer_bird.load(logdir, seed=1)
    assert not np.array_equal(play(other, states(5)), actions)
    assert not np.array_equal(play(policy, states(5), explore=True), actions)


def test_an_array_alone_is_the_only_observation(policy):
    np.testing.assert_array_equal(policy(states(1)[0])[0], policy({"state": states(1)[0]})[0])


@pytest.mark.parametrize(
    "obs, message",
    [
        ({"image": np.zeros((64, 64, 3), np.uint8)}, "observations image: must be state"),
        (np.zeros(4, np.float32), r"observation state is float32 \(4,\): must be float32 \(5,\)"),
        (np.full(5, 1e39), "observation state holds numbers that are not finite in float32"),
        (np.zeros(5, complex), r"observation state is complex128 \(5,\): must be float32 \(5,\)"),
    ],
)
def test_observations_that_do_not_fit_are_named(policy, obs, message):
    with pytest.raises(ConfigError, match=message):
        policy(obs)


def test_it_plays_in_the_environment_it_was_trained_in(policy):
    with policy.start_env() as env:
        obs, state, steps, done = env.reset(seed=0), None, 0, False
        while not done:
            action, state = policy(obs, state)
            obs, _, terminated, truncated = env.step(action)
            steps, done = steps + 1, terminated or truncated
    assert steps == 10


def test_a_saved_model_acts_the_same_without_the_package(policy, logdir, tmp_path):
    done = command("export", "--logdir", logdir, "--out", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/model: actions differ by at most ")
    agent = build_agent(read_snapshot(logdir))
    expected, latent = agent.policy({"state": states(3)}, agent.initial(3), (1, 2), False)
    expected, _ = agent.policy({"state": states(3)}, latent, (3, 4), False)
    code = f"""
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load({str(tmp_path / "model")!r})
obs = {{"state": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)}}
_, state = model.act(obs, model.initial(3), (1, 2))
action, _ = model.act(obs, state, (3, 4))
np.save({str(tmp_path / "action.npy")!r}, action)
assert not [name for name in sys.modules if name.startswith("dreamer_bird")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "action.npy"), expected, atol=1e-5)
    nowhere = command("export", "--logdir", logdir, "--out", tmp_path / "missing" / "model")
    assert nowhere.returncode == 2 and nowhere.stderr.count("\n") == 1
    again = command("export", "--logdir", logdir, "--out", tmp_path / "model")
    assert again.returncode == 2
    assert again.stderr.splitlines() == [f"run.py: --out {tmp_path}/model: exists already"]
