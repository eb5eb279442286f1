"""A trained policy in programs of one's own, and outside this package."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from command_line import command, python

import dreamer_bird
from dreamer_bird.commands import export
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.policy import _checked
from dreamer_bird.training import checkpoint
from dreamer_bird.training.snapshot import build_agent, read_snapshot
from dreamer_bird.utils import seeds

PROGRAM = """
import os, random, signal, sys, warnings
import numpy as np
import tensorflow as tf
import dreamer_bird

class Teller:  # to the terminal, while what load() needs is imported
    def find_spec(self, name, *_):
        if name == "tensorflow_probability":
            os.write(2, b"not hidden")

def settings():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return dict(os.environ), warnings.formatwarning, warnings.showwarning, handlers

def draws():
    return [*tf.random.uniform([3]).numpy(), *np.random.uniform(size=3), random.random()]

sys.meta_path.insert(0, Teller())
numbers, before = [], settings()
for load in (lambda: None, lambda: dreamer_bird.load(sys.argv[1])):
    for seed in (tf.random.set_seed, np.random.seed, random.seed):
        seed(1)
    first = draws()
    load()
    numbers.append(first + draws())
assert numbers[0] == numbers[1], numbers
assert settings() == before
"""


@pytest.fixture(scope="module")
def policy(tiny_run):
    return dreamer_bird.load(tiny_run)


def states(count):
    return np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)


def play(policy, observations, explore=False):
    actions, state = [], None
    for obs in observations:
        action, state = policy(obs, state, explore)
        actions.append(action)
    return np.stack(actions)


def test_it_acts_as_the_agent_of_the_run(policy, tiny_run):
    agent, latent, state = build_agent(read_snapshot(tiny_run)), None, None
    for step, obs in enumerate(states(3)):
        action, state = policy({"state": obs}, state)
        noise = seeds.stateless(0, "policy", step)
        expected, latent = agent.act({"state": obs[None]}, latent, noise, False)
        np.testing.assert_array_equal(action, expected[0])
        assert action.shape == (1,) and action.dtype == np.float32 and np.abs(action) <= 1


def test_an_episode_follows_from_its_observations_and_the_seed(policy, tiny_run):
    actions = play(policy, states(5))
    np.testing.assert_array_equal(play(policy, states(5)), actions)
    assert len(np.unique(actions)) == 5
    other = dreamer_bird.load(tiny_run, seed=1)
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


def test_an_image_of_more_than_a_byte_a_colour_is_refused():
    with pytest.raises(ConfigError, match=r"image is uint16 \(2,\): must be uint8 \(2,\)"):
        _checked("image", np.array([300, 7], np.uint16), (2,))


def test_it_plays_in_the_environment_it_was_trained_in(policy):
    with policy.start_env() as env:
        obs, state, steps, done = env.reset(seed=0), None, 0, False
        while not done:
            action, state = policy(obs, state)
            obs, _, terminated, truncated = env.step(action)
            steps, done = steps + 1, terminated or truncated
    assert steps == 10


def test_loading_changes_nothing_in_the_program(tiny_run):
    done = python("-c", PROGRAM, tiny_run, without=[key for key in os.environ if "TF_" in key])
    assert done.returncode == 0, done.stderr
    assert "not hidden" in done.stderr


def test_a_saved_model_acts_the_same_without_the_package(policy, tiny_run, tmp_path):
    done = command("export", "--logdir", tiny_run, "--out", tmp_path / "model")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/model: actions differ by ")
    snapshot = read_snapshot(tiny_run)
    config = snapshot.config.replace(precision="float32")
    agent = build_agent(snapshot._replace(config=config))
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
    nowhere = command("export", "--logdir", tiny_run, "--out", tmp_path / "action.npy" / "model")
    assert nowhere.returncode == 2 and nowhere.stderr.count("\n") == 1
    (tmp_path / "link").symlink_to("nothing")
    for taken in (tmp_path / "model", tmp_path / "link"):
        again = command("export", "--logdir", tiny_run, "--out", taken)
        assert again.returncode == 2
        assert again.stderr.splitlines() == [f"run.py: --out {taken}: exists already"]


@pytest.mark.parametrize("difference", [1e-3, np.nan])
def test_a_saved_model_that_acts_otherwise_is_not_written(
    tiny_run, tmp_path, monkeypatch, difference
):
    monkeypatch.setattr(export, "save", lambda agent, snapshot, folder: folder.mkdir())
    monkeypatch.setattr(export, "compare", lambda *_: difference)
    with pytest.raises(RunError, match="not written, its actions differ by"):
        export.main(["--logdir", str(tiny_run), "--out", str(tmp_path / "model")])
    assert not [*tmp_path.iterdir()]


def test_an_older_checkpoint_acts_as_it_did(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    old, *_ = checkpoint.newest_first(run / "checkpoints")
    arrays, header = checkpoint.load(old)
    arrays["actor/hout/bias"] = arrays["actor/hout/bias"] + 1
    checkpoint.save(run / "checkpoints", header["step"] + 10, arrays, header, keep=9)
    then, now = dreamer_bird.load(run, checkpoint=old), dreamer_bird.load(run)
    assert not np.array_equal(play(then, states(2)), play(now, states(2)))
    line = ["--logdir", str(run), "--out", str(tmp_path / "old"), "--checkpoint", str(old)]
    assert export.main([*line, "--run"]) == 0
    exported = dreamer_bird.load(tmp_path / "old")
    np.testing.assert_array_equal(play(exported, states(2)), play(then, states(2)))


def test_what_plays_some_episodes_is_not_compiled(tiny_run):
    snapshot = read_snapshot(tiny_run)
    compiled = snapshot.config.replace(xla="true")
    assert not build_agent(snapshot._replace(config=compiled)).compiled


def test_a_run_of_the_weights_alone_acts_the_same_and_does_not_go_on(policy, tiny_run, tmp_path):
    done = command("export", "--run", "--logdir", tiny_run, "--out", tmp_path / "small")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "small" / "checkpoints").iterdir()
    whole = tiny_run / "checkpoints" / file.name
    assert file.stat().st_size < whole.stat().st_size / 2
    obs, alone = states(3)[0], dreamer_bird.load(tmp_path / "small")
    np.testing.assert_array_equal(alone(obs)[0], policy(obs)[0])
    settings = read_snapshot(tiny_run).config.replace(logdir=str(tmp_path / "small")).flatten()
    flags = [f"--{key}={'null' if value is None else value}" for key, value in settings.items()]
    again = command(*flags)
    assert again.returncode == 1
    assert "the checkpoint is of other networks: its model_optimizer" in again.stderr
    assert list(file.parent.iterdir()) == [file]
