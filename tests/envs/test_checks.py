"""Every way in which an environment can break its own spec is refused, and the field named."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

from dreamer_bird.envs.checks import Checked, flaw
from dreamer_bird.errors import ConfigError, RunError

ARM = Dict(
    {
        "position": Box(-1.0, 1.0, (2,), np.float32),
        "camera": Box(0, 255, (2, 3, 1), np.uint8),
        "gripper": Dict({"force": Box(0.0, np.inf, (), np.float64), "state": Discrete(3, start=1)}),
        "touch": Tuple((MultiBinary(2), Discrete(2))),
    }
)


def observation(**changes):
    sound = {
        "position": np.array([0.5, -1.0], np.float32),
        "camera": np.full((2, 3, 1), 255, np.uint8),
        "gripper": {"force": np.float64(1e9), "state": 3},
        "touch": (np.array([0, 1], np.int8), np.int64(1)),
    }
    return {key: value for key, value in {**sound, **changes}.items() if value is not None}


class Arm(gymnasium.Env):
    """Returns whatever it was told to."""

    observation_space = ARM
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, first=None, then=None, image=None, render_mode="rgb_array"):
        self.first = (observation(), {}) if first is None else first
        self.then = (observation(), 0.0, False, False, {}) if then is None else then
        self.image, self.render_mode = image, render_mode

    def reset(self, *, seed=None, options=None):
        return self.first

    def step(self, action):
        return self.then

    def render(self):
        return self.image


BROKEN = [
    (observation(position=np.zeros(3, np.float32)), "'position' is float32 (3,) instead of"),
    (observation(position=np.zeros(2)), "'position' is float64 (2,) instead of float32 (2,)"),
    (observation(position=np.zeros(2, np.int64)), "'position' is int64 (2,) instead of float32"),
    (observation(position=[0.0, 0.0]), "'position' is a list of 2 instead of an array"),
    (observation(position=None), " lacks 'position'"),
    (observation(speed=0.0, name=""), " has an unknown 'name', 'speed'"),
    (observation(position=np.float32([0, np.nan])), "'position'[1] is nan, not a finite float32"),
    (observation(position=np.float32([-np.inf, 0])), "'position'[0] is -inf, not a finite float32"),
    (observation(position=np.float32([0, 1.001])), "'position'[1] is 1.001, outside of [-1"),
    (observation(camera=np.zeros((2, 3, 1))), "'camera' is float64 (2, 3, 1) instead of uint8"),
    (
        observation(gripper={"force": np.float64(-0.1), "state": 1}),
        "'gripper.force' is -0.1, outside of [0.0, inf]",
    ),
    (
        observation(gripper={"force": np.float64(1e39), "state": 1}),
        "'gripper.force' is 1e+39, not a finite float32",
    ),
    (
        observation(gripper={"force": np.float64(0), "state": 0}),
        "'gripper.state' is 0, not in Discrete(3, start=1)",
    ),
    (observation(gripper=np.zeros(2)), "'gripper' is float64 (2,) instead of a dictionary"),
    (
        observation(touch=(np.array([0, 2], np.int8), 1)),
        "'touch.0' is [0 2], not in MultiBinary(2)",
    ),
    (observation(touch=(np.array([0, 1], np.int8), 1.0)), "'touch.1' is 1.0, not in Discrete(2)"),
    (observation(touch=(0,)), "'touch' is a tuple of 1 instead of a tuple of 2"),
    (np.zeros(2), " is float64 (2,) instead of a dictionary"),
    (None, " is None instead of a dictionary"),
]


@pytest.mark.parametrize(("broken", "words"), BROKEN)
def test_a_broken_observation_is_refused_by_name_at_reset_and_later(broken, words):
    at_once = Checked("own:make", Arm(first=(broken, {})))
    with pytest.raises(ConfigError) as caught:
        at_once.reset(seed=0)
    message = f"own:make: observation{'' if words.startswith(' ') else ' '}{words}"
    assert str(caught.value).startswith(message)
    later = Checked("own:make", Arm(then=(broken, 0.0, False, False, {})))
    later.reset(seed=0)
    with pytest.raises(RunError) as caught:
        later.step(0)
    assert not isinstance(caught.value, ConfigError)
    assert str(caught.value).startswith(message)


def test_the_documented_way_to_mend_an_environment_works():
    class Sloppy(gymnasium.Env):
        observation_space = Box(-1.0, 1.0, (2,), np.float32)
        action_space = Box(-1.0, 1.0, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.array([0.1, 0.2]), {}

    with pytest.raises(ConfigError, match="float64"):
        Checked("t", Sloppy()).reset(seed=0)
    mended = gymnasium.wrappers.DtypeObservation(Sloppy(), np.float32)
    observation, _ = Checked("t", mended).reset(seed=0)
    np.testing.assert_array_equal(observation, np.float32([0.1, 0.2]))


def test_what_is_not_a_dictionary_has_no_name():
    assert flaw(Box(0, 1, (2,)), np.float32([0, 2])) == (
        "observation[1] is 2.0, outside of [0.0, 1.0]"
    )
    assert flaw(Discrete(2), 5) == "observation is 5, not in Discrete(2)"


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ((observation(), 0.0, False, {}), "step() returns a tuple of 4 instead of (observation, "),
        (observation(), "step() returns a dict instead of"),
        ((observation(), np.nan, False, False, {}), "reward is nan, not a finite float32"),
        ((observation(), -np.inf, False, False, {}), "reward is -inf, not a finite float32"),
        ((observation(), 1e39, False, False, {}), "reward is 1e+39, not a finite float32"),
        ((observation(), None, False, False, {}), "reward is None instead of a number"),
        ((observation(), "1", False, False, {}), "reward is a str instead of a number"),
        ((observation(), np.zeros(1), False, False, {}), "reward is float64 (1,) instead of a nu"),
        ((observation(), 0.0, 0, False, {}), "terminated is a int instead of a bool"),
        ((observation(), 0.0, False, None, {}), "truncated is None instead of a bool"),
    ],
)
def test_a_broken_step_is_refused(then, words):
    env = Checked("own:make", Arm(then=then))
    env.reset(seed=0)
    with pytest.raises(RunError) as caught:
        env.step(0)
    assert str(caught.value).startswith(f"own:make: {words}")


@pytest.mark.parametrize("first", [observation(), (observation(),), [observation(), {}]])
def test_a_reset_that_returns_no_pair_is_refused(first):
    with pytest.raises(ConfigError, match=r"^own:make: reset\(\) returns a .* instead of \(obs"):
        Checked("own:make", Arm(first=first)).reset(seed=0)


def test_a_reset_that_takes_no_seed_is_refused():
    class Old(Arm):
        def reset(self):
            return super().reset()

    with pytest.raises(ConfigError, match=r"^own:make: reset\(\) takes no seed"):
        Checked("own:make", Old())


@pytest.mark.parametrize("name", ["reset", "step", "render", "close"])
def test_what_is_no_method_is_refused(name):
    words = f"^own:make: {name} is None instead of a method$"
    with pytest.raises(ConfigError, match=words):
        Checked("own:make", type("Broken", (Arm,), {name: None})())


def test_a_reset_need_not_take_options():
    class Plain(Arm):
        def reset(self, seed):
            return super().reset(seed=seed)

    first = (observation(), {})
    assert Checked("own:make", Plain(first=first)).reset(seed=0) is first


@pytest.mark.parametrize("name", ["observation_space", "action_space"])
def test_what_is_no_space_is_refused(name):
    env = Arm()
    setattr(env, name, (2,))
    with pytest.raises(ConfigError, match=f"own:make: {name} is a tuple of 1 instead of a gymn"):
        Checked("own:make", env)


@pytest.mark.parametrize(
    "reward", [1, True, 0.5, np.float32(0.5), np.float64(0.5), np.int64(2), -3e38]
)
def test_any_real_number_is_a_reward_and_nothing_is_changed(reward):
    then = (observation(), reward, np.bool_(True), False, {"a": 1})
    env = Checked("own:make", Arm(then=then))
    env.reset(seed=0)
    assert env.step(0) is then


def test_rounding_at_the_bounds_is_forgiven():
    box = Box(-1.0, np.float32(np.pi), (2,), np.float32)
    assert flaw(box, np.float32([-1 - 5e-7, np.pi + 1e-6])) == ""
    assert flaw(box, np.float32([-1 - 1e-5, 0])).startswith("observation[0] is -1.0000")
    assert flaw(Box(0, 200, (1,), np.uint8), np.uint8([201])) != ""


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (None, "None"),
        ([[1]], "a list of 1"),
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \(4, 4, 4\)"),
        (np.zeros((0, 0, 3), np.uint8), r"uint8 \(0, 0, 3\)"),
    ],
)
def test_a_broken_image_is_refused(image, kind):
    env = Checked("own:make", Arm(image=image))
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=rf"own:make: render\(\) returns {kind} instead of an im"):
        env.render()


def test_an_environment_made_without_rendering_says_so():
    words = r"render\(\) returns None instead of .*; its render_mode is 'human', not 'rgb_array'$"
    with pytest.raises(ConfigError, match=words):
        Checked("own:make", Arm(render_mode="human")).render()
