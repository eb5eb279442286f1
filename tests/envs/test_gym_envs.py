"""Environments of gymnasium as an agent sees them, step by step beside the environments themselves.

Those that open OpenGL run in workers, since TensorFlow may be loaded here.
"""

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.spaces.utils import flatten
from PIL import Image

from dreamer_bird.envs import checks
from dreamer_bird.envs.adapter import Adapter
from dreamer_bird.envs.checks import Checked
from dreamer_bird.envs.gym import make_registered
from dreamer_bird.envs.make import environment
from dreamer_bird.envs.rendering import OpenGL
from dreamer_bird.envs.spaces import OneHot, Spec, random_action
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import ConfigError, RunError

needs_pygame = pytest.mark.skipif(find_spec("pygame") is None, reason="needs pygame")


def adapt(env, obs="state", action_repeat=1, size=64):
    return Adapter("t", Checked("t", env), obs=obs, action_repeat=action_repeat, size=size)


def registered(env_id, **settings):
    return adapt(make_registered(f"gym_{env_id}", 64, False, {}), **settings)


def test_pendulum_takes_rescaled_actions_and_ends_by_its_own_limit_alone():
    ours, theirs = registered("Pendulum-v1", action_repeat=3), gymnasium.make("Pendulum-v1")
    assert ours.action_space == Box(-1, 1, (1,), np.float32)
    assert ours.observation_space == Dict({"state": Box(-np.inf, np.inf, (3,), np.float32)})
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(ours.reset(seed=5)[0]["state"], theirs.reset(seed=5)[0])
    ends = []
    while not any(ends):
        action = rng.uniform(-1, 1, 1).astype(np.float32)
        observation, reward, *ends, _ = ours.step(action)
        total, expected = 0.0, None
        for _ in range(3):
            expected, raw_reward, _, done, _ = theirs.step(2 * action)
            total += raw_reward
            if done:
                break
        np.testing.assert_array_equal(observation["state"], expected)
        assert reward == pytest.approx(total, rel=1e-12)
        assert ends == [False, done]
    assert done  # At 200 of its steps, which is no multiple of 3.


def test_cartpole_takes_one_hot_actions_and_terminates():
    ours, theirs = registered("CartPole-v1"), gymnasium.make("CartPole-v1")
    assert ours.action_space == OneHot(2)
    np.testing.assert_array_equal(ours.reset(seed=1)[0]["state"], theirs.reset(seed=1)[0])
    for step in range(500):
        choice = int(step % 7 < 5)
        one_hot = np.eye(2, dtype=np.float32)[choice]
        observation, reward, terminated, truncated, _ = ours.step(one_hot)
        expected = theirs.step(choice)
        np.testing.assert_array_equal(observation["state"], expected[0])
        assert (reward, terminated, truncated) == expected[1:4]
        if terminated:
            break
    assert terminated
    assert not truncated


@needs_pygame
def test_an_episode_is_a_function_of_its_seed():
    env, fresh = registered("CartPole-v1", obs="both"), registered("CartPole-v1", obs="both")
    env.reset(seed=1)
    env.step(np.float32([0, 1]))

    def play(env, seed):
        return [env.reset(seed=seed)[0], *(env.step(np.float32([0, 1]))[0] for _ in range(5))]

    for first, again, other in zip(play(fresh, 2), play(env, 2), play(env, 3), strict=True):
        for key in ("image", "state"):
            np.testing.assert_array_equal(first[key], again[key])
            assert np.any(first[key] != other[key])


@pytest.mark.parametrize(
    "env_id",
    ["Acrobot-v1", "MountainCarContinuous-v0", "Taxi-v4", "FrozenLake-v1", "Blackjack-v1"],
)
def test_whatever_flattens_is_a_state(env_id):
    ours, theirs = registered(env_id), gymnasium.make(env_id)
    rng = np.random.default_rng(0)
    observation, raw = ours.reset(seed=0)[0], theirs.reset(seed=0)[0]
    for _ in range(20):
        assert ours.observation_space.contains(observation)
        expected = flatten(theirs.observation_space, raw)
        np.testing.assert_array_equal(observation["state"], np.float32(expected))
        action = random_action(ours.action_space, rng)
        raw_action = action if ours.action_space.shape == (1,) else int(action.argmax())
        observation, _, *ends, _ = ours.step(action)
        raw = theirs.step(raw_action)[0]
        if any(ends):
            break


@pytest.mark.parametrize(
    ("task", "spec"),
    [
        pytest.param(
            *("gym_CartPole-v1", Spec({"image": (48, 48, 3), "state": (4,)}, 2, True)),
            marks=needs_pygame,
        ),
        ("gym_Hopper-v5", Spec({"image": (48, 48, 3), "state": (11,)}, 3)),
    ],
)
def test_pixels_are_rendered_in_a_worker(task, spec):
    make = environment(task, obs="both", size=48, time_limit=9, action_repeat=4, shadows=False)
    with EnvWorker("probe", make) as env:
        assert env.spec == spec
        first = env.reset(1)
        action = random_action(env.facts.action_space, np.random.default_rng(0))
        second, _, *ends = env.step(action)
        assert ends == [False, False]
        assert first["image"].std() > 5
        assert np.any(first["image"] != second["image"])
        np.testing.assert_array_equal(env.render(), second["image"])
        assert env.step(action)[2:] == (False, True)  # 9 environment steps are 2 of the agent's.
        np.testing.assert_array_equal(env.reset(1)["image"], first["image"])


@pytest.fixture
def no_pygame(tmp_path, monkeypatch):
    (tmp_path / "pygame.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(tmp_path)


def test_without_pygame_pixels_are_refused_with_what_to_install(no_pygame):
    with EnvWorker("probe", environment("gym_CartPole-v1")) as env:
        with pytest.raises(RunError) as caught:
            env.reset(0)
        assert "pygame is not installed, run `pip install" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_pygame_state_is_learned_from_and_nothing_filmed(no_pygame):
    with EnvWorker("probe", environment("gym_CartPole-v1", obs="state")) as env:
        assert env.reset(0)["state"].shape == (4,)
        with pytest.warns(UserWarning, match="no images are rendered: gym_CartPole-v1: pygame is"):
            assert env.film() is None


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("phys2d/CartPole-v1", "No module named 'jax'"),
        ("Ant-v3", "moved to the gymnasium-robotics project"),
        ("json:Nothing-v1", "Environment `Nothing` doesn't exist"),
    ],
)
def test_what_gymnasium_cannot_make_is_refused_in_its_words(env_id, words):
    make = environment(f"gym_{env_id}", obs="state")
    with EnvWorker("probe", make) as env, pytest.raises(ConfigError, match=words) as caught:
        env.reset(0)
    assert str(caught.value).startswith(f"gym_{env_id}: ")
    assert "\n" not in str(caught.value)


class Probe(gymnasium.Env):
    """Has the spaces it is given, observes what it is given, and keeps the actions."""

    def __init__(self, observation=None, value=None, action=None, mode=None):
        self.observation_space = Box(-1, 1, (1,)) if observation is None else observation
        self.action_space = action or Box(-1, 1, (1,))
        self.value = np.zeros(1, np.float32) if value is None else value
        self.actions, self.renders, self.render_mode = [], 0, mode

    def reset(self, *, seed=None, options=None):
        return self.value, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.actions.append(action)
        return self.value, 1.0, False, False, {}

    def render(self):
        self.renders += 1
        return np.arange(9 * 5 * 3, dtype=np.uint8).reshape(9, 5, 3)


def test_discrete_actions_may_start_anywhere():
    probe = Probe(action=Discrete(3, start=-1))
    env = adapt(probe)
    env.reset(seed=0)
    for one_hot in np.eye(3, dtype=np.float32):
        env.step(one_hot)
    env.step(np.float32([0, 0.999999, 1e-6]))  # As straight-through gradients round.
    assert probe.actions == [-1, 0, 1, 0]
    for wrong in ([0.5, 0.5, 0], [0, 0, 0], [1, 1, 0], [np.nan, 0, 1]):
        with pytest.raises(ValueError, match=r"is not"):
            env.step(np.float32(wrong))
    with pytest.raises(ValueError, match=r"has shape \(2,\) instead of \(3,\)"):
        env.step(np.float32([0, 1]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_bounds_of_any_kind_are_spanned(dtype):
    low, high = np.array([[-3, 0], [5, -9]], dtype), np.array([[3, 10], [5, 1]], dtype)
    probe = Probe(action=Box(low, high, dtype=dtype))
    env = adapt(probe)
    env.reset(seed=0)
    assert env.action_space == Box(-1, 1, (4,), np.float32)
    for action in (-1, 1, 0, 1 + 1e-6):
        env.step(np.full(4, action, np.float32))
    lowest, highest, middle, rounded = probe.actions
    np.testing.assert_array_equal(lowest, low)
    np.testing.assert_array_equal(highest, high)
    np.testing.assert_array_equal(middle, [[0, 5], [5, -4]])
    np.testing.assert_array_equal(rounded, high)
    assert {action.dtype for action in probe.actions} == {np.dtype(dtype)}
    with pytest.raises(ValueError, match="not finite and within"):
        env.step(np.full(4, 1.1, np.float32))


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (MultiDiscrete([2, 3]), "action_space is MultiDiscrete([2 3]): valid are Box and Discrete"),
        (Dict(a=Discrete(2)), "action_space is Dict('a': Discrete(2)): valid are Box and Discrete"),
        (Box(-1, np.inf, (2, 2)), "action_space[0, 0] has the bounds [-1.0, inf]: both must be "),
    ],
)
def test_other_actions_are_refused(space, words):
    with pytest.raises(ConfigError) as caught:
        adapt(Probe(action=space))
    assert str(caught.value).startswith(f"t: {words}")


GREY = np.arange(7 * 6, dtype=np.uint8).reshape(7, 6, 1)
MIXED = Dict(
    {
        "camera": Dict({"left": Box(0, 255, (7, 6, 1), np.uint8)}),
        "joints": Box(-9, 9, (2, 2), np.float64),
        "mode": Tuple((Discrete(3, start=2), MultiBinary(2), MultiDiscrete([2, 3]))),
    }
)
VALUE = {
    "camera": {"left": GREY},
    "joints": np.array([[1, 2], [3, 4.0]]),
    "mode": (3, np.array([0, 1], np.int8), np.array([1, 0])),
}


def test_an_observation_may_hold_an_image_and_much_else():
    env = adapt(Probe(MIXED, VALUE), obs="both", size=16)
    assert env.observation_space["image"].shape == (16, 16, 3)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["state"], [1, 2, 3, 4, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0])
    assert observation["state"].dtype == np.float32
    resized = Image.fromarray(GREY[:, :, 0]).resize((16, 16), Image.Resampling.BILINEAR)
    for channel in range(3):
        np.testing.assert_array_equal(observation["image"][:, :, channel], resized)
    np.testing.assert_array_equal(env.render(), observation["image"])
    assert adapt(Probe(MIXED, VALUE), obs="pixels").observation_space.keys() == {"image"}
    assert env.render_mode == "rgb_array"


def test_an_image_of_the_right_size_is_left_alone_and_not_shared():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    env = adapt(Probe(Box(0, 255, (16, 16, 3), np.uint8), pixels), obs="pixels", size=16)
    image = env.reset(seed=0)[0]["image"]
    np.testing.assert_array_equal(image, pixels)
    assert not np.shares_memory(image, pixels)


def test_nothing_is_rendered_unless_pixels_are_wanted_and_none_observed():
    for probe, obs, renders in (
        (Probe(mode="rgb_array"), "pixels", 2),
        (Probe(mode="rgb_array"), "both", 2),
        (Probe(mode="rgb_array"), "state", 0),
        (Probe(MIXED, VALUE, mode="rgb_array"), "both", 0),
    ):
        env = adapt(probe, obs=obs, action_repeat=5)
        env.reset(seed=0)
        assert env.step(np.zeros(1, np.float32))[1] == 5
        assert probe.renders == renders


def test_images_that_cannot_be_used_do_not_forbid_state():
    space = Dict(cameras=Box(0, 9, (2, 8, 8), np.uint8), speed=Box(0, 9, (1,), np.float32))
    value = {"cameras": np.zeros((2, 8, 8), np.uint8), "speed": np.ones(1, np.float32)}
    env = adapt(Probe(space, value, mode="rgb_array"))
    np.testing.assert_array_equal(env.reset(seed=0)[0]["state"], [1])
    assert env.render().shape == (64, 64, 3)
    assert env.notes == ["t: observation 'cameras' is an image and left out"]


def test_rendered_frames_are_resized():
    probe = Probe(mode="rgb_array")
    image = adapt(probe, obs="pixels", size=32).reset(seed=0)[0]["image"]
    expected = Image.fromarray(probe.render()).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("probe", "obs", "words"),
    [
        (
            Probe(Box(0, 255, (4, 4, 3), np.uint8)),
            "state",
            "--obs state: observes an image and nothing else: --obs pixels",
        ),
        (
            Probe(Dict(a=Box(0, 255, (4, 4, 1), np.uint8))),
            "both",
            "--obs both: observes an image and nothing else: --obs pixels",
        ),
        (
            Probe(Dict({}), {}, mode="rgb_array"),
            "state",
            "--obs state: observation_space Dict() is empty: valid are Box, Discrete, MultiBinary",
        ),
        (
            Probe(Box(0, 255, (0, 5, 3), np.uint8)),
            "pixels",
            "--obs pixels: observation is uint8 (0, 5, 3): an image is (height, width, 1 or 3)",
        ),
        (
            Probe(Text(5)),
            "state",
            "--obs state: observation is text: valid are Box, Discrete, MultiBinary, MultiDiscret",
        ),
        (
            Probe(Dict(a=Dict(words=Text(5)))),
            "state",
            "--obs state: observation 'a.words' is text: valid are Box, Discrete, MultiBinary, Mul",
        ),
        (
            Probe(Dict(a=Box(0, 9, (4, 4, 3), np.uint8), b=Box(0, 9, (4, 4, 3), np.uint8))),
            "pixels",
            "--obs pixels: observation 'a' and observation 'b' are images: one is the most",
        ),
        (
            Probe(Dict(a=Dict(stack=Box(0, 9, (4, 8, 8), np.uint8))), mode="rgb_array"),
            "both",
            "--obs both: observation 'a.stack' is uint8 (4, 8, 8): an image is (height, width, 1 o",
        ),
        *(
            (
                Probe(Box(0, 9, shape, np.uint8), mode="rgb_array"),
                obs,
                f"--obs {obs}: observation is uint8 {shape}: an image is (height, width, 1 or 3)",
            )
            for shape in ((4, 8, 8), (84, 84, 12), (4, 64, 64, 3))
            for obs in ("pixels", "state")
        ),
    ],
)
def test_what_cannot_be_observed_is_refused_with_what_can(probe, obs, words):
    with pytest.raises(ConfigError) as caught:
        adapt(probe, obs=obs)
    assert str(caught.value).startswith(f"t: {words}")


@pytest.mark.parametrize("space", [Box(-1, 1, (1,)), Dict({})])
def test_an_environment_that_shows_nothing_is_sent_to_its_state_if_it_has_one(space, monkeypatch):
    # To look for one would load Mesa's LLVM beside TensorFlow's, and this process crash at its end.
    monkeypatch.setattr(checks, "opengl", lambda: OpenGL("egl"))
    env = adapt(Dark(space, {} if isinstance(space, Dict) else None, mode="human"), obs="pixels")
    with pytest.raises(ConfigError) as caught:
        env.reset(seed=0)
    words = "its render_mode is 'human', not 'rgb_array'"
    words += ": --obs state" * isinstance(space, Box)
    assert str(caught.value) == f"t: render() raises NotImplementedError; {words}"


class Dark(Probe):
    def render(self):
        raise NotImplementedError


PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize(("shape", "told"), [((16, 16, 3), 1), ((3, 16, 16), 1), ((16, 16), 0)])
def test_what_looks_like_an_image_but_has_other_numbers_is_told(shape, told):
    space = Box(0, 255, shape, np.float32)
    env = adapt(Probe(space, np.zeros(shape, np.float32), mode="rgb_array"), obs="state", size=16)
    what = f"t: observation, float32 {shape}, is no image, which is uint8 or of a Box with bounds"
    assert env.notes == [f"{what} within [0, 1]"] * told


@pytest.mark.parametrize(
    ("space", "value", "image"),
    [
        (Box(0, 255, (16, 16), np.uint8), PICTURE[:, :, 0], PICTURE[:, :, :1]),
        (Box(0, 255, (16, 16, 1), np.uint8), PICTURE[:, :, :1], PICTURE[:, :, :1]),
        (Box(0, 255, (3, 16, 16), np.uint8), np.moveaxis(PICTURE, 2, 0), PICTURE),
        (Box(0, 1, (16, 16, 3), np.float32), np.float32(PICTURE / 255), PICTURE),
        (Box(0, 1, (3, 16, 16), np.float64), np.moveaxis(PICTURE, 2, 0) / 255, PICTURE),
        (Box(0, 1, (16, 16), np.float32), np.float32(PICTURE[:, :, 0] / 255), PICTURE[:, :, :1]),
    ],
)
def test_an_image_of_any_form_is_seen_and_no_state(space, value, image):
    env = adapt(Probe(space, value, mode="rgb_array"), obs="pixels", size=16)
    seen = env.reset(seed=0)[0]["image"]
    np.testing.assert_array_equal(seen, np.broadcast_to(image, (16, 16, 3)))
    assert env.notes == [f"t: observation, {space.dtype} {space.shape}, is seen as an image"]
    with pytest.raises(ConfigError, match="observes an image and nothing else: --obs pixels"):
        adapt(Probe(space, value, mode="rgb_array"))


def test_a_table_of_numbers_is_no_image():
    for table in (
        Box(0, 1, (3, 20), np.float32),
        Box(0, 255, (4, 4), np.uint8),
        Box(-1, 1, (9, 9)),
    ):
        assert adapt(Probe(table)).observation_space["state"].shape == (np.prod(table.shape),)


def test_text_is_left_out_of_the_state_with_a_word():
    space = Dict(mission=Text(9), speed=Box(-1, 1, (2,)))
    env = adapt(Probe(space, {"mission": "go", "speed": np.float32([0.5, 1])}))
    np.testing.assert_array_equal(env.reset(seed=0)[0]["state"], [0.5, 1])
    assert env.notes == ["t: observation 'mission' is text and left out"]
