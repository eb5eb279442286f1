"""The suite's tasks, in a process without TensorFlow, beside which software OpenGL crashes."""

import multiprocessing
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import command_line
import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dreamer_bird.envs.make import make_env
from dreamer_bird.envs.tasks import SUITE, TASKS
from dreamer_bird.errors import ConfigError

ACTIONS = {
    "acrobot": 1,
    "cartpole": 1,
    "cheetah": 6,
    "cup": 2,
    "finger": 2,
    "hopper": 4,
    "pendulum": 1,
    "quadruped": 12,
    "reacher": 2,
    "walker": 6,
}


DOMAINS = list({task.split("_")[1]: task for task in TASKS}.values())  # a task of each


@pytest.fixture(scope="module")
def isolated():
    """Run a function of this module in another process and return what it returns."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=120)


def play(env, seed, steps=2):
    """Return the images and rewards of the first steps under random actions."""
    generator = np.random.default_rng(0)
    images, rewards = [env.reset(seed=seed)[0]["image"]], []
    for _ in range(steps):
        action = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, _, _, _ = env.step(action)
        images.append(observation["image"])
        rewards.append(reward)
    return np.stack(images), np.array(rewards)


def play_thrice(task):
    env, fresh = make_env(task), make_env(task)
    episodes = [play(env, 1), play(env, 2), play(env, 1), play(fresh, 1)]
    spaces = env.observation_space, env.action_space
    env.close()
    fresh.close()
    return spaces, episodes


@pytest.mark.parametrize("task", DOMAINS)
def test_spaces_pixels_and_seeds(isolated, task):
    spaces, (first, other, again, fresh) = isolated(play_thrice, task)
    observation_space, action_space = spaces
    assert action_space == gymnasium.spaces.Box(-1, 1, (ACTIONS[task.split("_")[1]],), np.float32)
    assert list(observation_space) == ["image"]
    assert observation_space["image"] == gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    images, rewards = first
    assert images.shape == (3, 64, 64, 3)
    assert images.dtype == np.uint8
    assert images[0].std() > 10  # A scene, not an empty buffer.
    assert np.any(images[0] != images[2])  # The world moves, and the frames are no views of one.
    assert np.all((rewards >= 0) & (rewards <= 2))
    for repeated in (again, fresh):
        np.testing.assert_array_equal(repeated[0], images)
        np.testing.assert_array_equal(repeated[1], rewards)
    assert np.any(other[0][0] != images[0])


def step_all():
    """Return what every task of the suite but those tested beyond that gives after a step."""
    found = {}
    for task in set(SUITE) - set(DOMAINS):
        env = make_env(task, obs="both", shadows=False, size=32)
        first = env.reset(seed=1)[0]
        second, reward, *_ = env.step(np.ones(env.action_space.shape, np.float32))
        spaces_hold = env.observation_space.contains(second)
        found[task] = first, second, reward, spaces_hold
        env.close()
    return found


def test_a_step_of_every_other_task_and_all_are_those_that_the_suite_registers(isolated):
    found = isolated(step_all)
    assert len(found) == 52 - len(DOMAINS)
    for task, (first, second, reward, spaces_hold) in found.items():
        assert spaces_hold and np.isfinite(second["state"]).all() and np.isfinite(reward), task
        assert second["image"].std() > 3, task
        assert np.any(first["state"] != second["state"]), task
    np.testing.assert_array_equal(
        found["dmc_ball_in_cup_catch"][1]["image"], isolated(cup_catch)["image"]
    )
    registered = isolated(registered_tasks)
    assert {*SUITE} == {*registered, "dmc_cup_catch"} and len(registered) == 51


def cup_catch():
    env = make_env("dmc_cup_catch", obs="both", shadows=False, size=32)
    env.reset(seed=1)
    return env.step(np.ones(env.action_space.shape, np.float32))[0]


def registered_tasks():
    from dm_control import suite

    return [f"dmc_{domain}_{task}" for domain, task in suite.ALL_TASKS]


def cameras(task, chosen):
    """Return the first image from each of the cameras, or what is told of it."""
    images = []
    for camera in chosen:
        try:
            env = make_env(task, camera=camera)
        except ConfigError as error:
            images.append(str(error))
            continue
        images.append(env.reset(seed=0)[0]["image"])
        env.close()
    return images


def limited():
    with pytest.raises(ConfigError) as refusal:
        make_env("dmc_cup_catch", kwargs="{time_limit: 3}")
    return str(refusal.value)


def test_a_time_limit_is_a_setting_and_no_argument_of_the_task(isolated):
    told = isolated(limited)
    assert told == "--env.kwargs time_limit: use --env.time_limit, in environment steps"


def test_a_camera_is_chosen_by_name_or_number_and_a_bad_one_named(isolated):
    default, same, other, free, bad, far = isolated(
        cameras, "dmc_quadruped_walk", (None, "y", "1", "free", "eye", "4")
    )
    np.testing.assert_array_equal(default, same)
    assert np.any(default != other) and np.any(default != free)
    valid = "dmc_quadruped_walk has 0 (global), 1 (x), 2 (y), 3 (egocentric), -1 (free)"
    assert (bad, far) == (f"--env.camera eye: {valid}", f"--env.camera 4: {valid}")


def control_of_lqr():
    env = make_env("dmc_lqr_lqr_2_1", obs="state")
    env.reset(seed=0)
    env.step(np.float32([1]))
    return env.unwrapped._env._env.physics.data.ctrl.copy()


def test_actions_without_bounds_are_those_up_to_one(isolated):
    np.testing.assert_array_equal(isolated(control_of_lqr), [1])


def size_of_state(**keywords):
    env = make_env("dmc_manipulator_bring_ball", obs="state", **keywords)
    return env.observation_space["state"].shape[0]


def test_a_task_takes_arguments(isolated):
    told = isolated(partial(size_of_state, kwargs="fully_observable: false"))
    assert 0 < told < isolated(size_of_state)


def play_blindly(task, keywords, actions):
    """Count the agent steps and physics of one episode, without paying for its pixels."""
    env = make_env(task, **keywords)
    image = env.reset(seed=0)[0]["image"]
    base = env.unwrapped
    base._observe = lambda: {"image": image}
    steps, ends = 0, (False, False)
    while not any(ends) and steps < 2000:
        action = actions[steps % len(actions)] * np.ones(env.action_space.shape, np.float32)
        _, _, *ends, _ = env.step(action)
        steps += 1
    suite = base._env._env
    environment_steps = suite.physics.time() / suite.control_timestep()
    env.close()
    return steps, environment_steps, tuple(ends)


@pytest.mark.parametrize("task", DOMAINS)
def test_an_episode_has_1000_environment_steps(isolated, task):
    steps, environment_steps, ends = isolated(play_blindly, task, {}, [-0.5, 1.0, 0.25])
    assert steps == 500
    assert environment_steps == pytest.approx(1000)
    assert ends == (False, True)


@pytest.mark.parametrize(
    ("repeat", "limit", "steps"), [(1, 30, 30), (4, 1000, 250), (2, 3000, 1500)]
)
def test_other_repeats_and_limits(isolated, repeat, limit, steps):
    keywords = {"action_repeat": repeat, "time_limit": limit}
    found = isolated(play_blindly, "dmc_pendulum_swingup", keywords, [0.0])
    assert found == (steps, pytest.approx(limit), (False, True))


class _Timesteps:
    """Stands in for the suite's environment: rewards 1, 2, 3..., and an end after `length`."""

    def __init__(self, env, length, discount):
        self.env, self.length, self.discount, self.count = env, length, discount, 0

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, action):
        import dm_env

        self.count += 1
        last = self.count == self.length
        kind = dm_env.StepType.LAST if last else dm_env.StepType.MID
        discount = self.discount if last else 1.0
        observation = self.env.task.get_observation(self.env.physics)
        return dm_env.TimeStep(kind, float(self.count), discount, observation)


def step_to_the_end(length, discount):
    env = make_env("dmc_cartpole_balance", action_repeat=4)
    env.reset(seed=0)
    base = env.unwrapped
    rendered = []
    observe = base._observe
    base._observe = lambda: rendered.append(1) or observe()
    base._env._env = _Timesteps(base._env._env, length, discount)
    results = [env.step(np.zeros(1, np.float32))[1:4] for _ in range(2)]
    env.close()
    return results, len(rendered)


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_rewards_are_summed_up_to_the_end(isolated, discount):
    results, rendered = isolated(step_to_the_end, 6, discount)
    assert results[0] == (1 + 2 + 3 + 4, False, False)
    assert results[1] == (5 + 6, discount == 0, discount == 1)
    assert rendered == 2  # Once for each agent step.


def controls(task, action):
    env = make_env(task)
    env.reset(seed=0)
    env.step(np.full(env.action_space.shape, action, np.float32))
    suite = env.unwrapped._env._env
    spec, control = suite.action_spec(), suite.physics.data.ctrl.copy()
    env.close()
    return spec.minimum, spec.maximum, control


@pytest.mark.parametrize("action", [-1.0, 0.0, 1.0])
def test_actions_span_the_bounds_of_the_task(isolated, action):
    low, high, control = isolated(controls, "dmc_quadruped_walk", action)
    assert high.max() == 1.1
    np.testing.assert_allclose(control, low + (action + 1) / 2 * (high - low), atol=1e-12)


def refusal(action):
    env = make_env("dmc_reacher_easy")
    env.reset(seed=0)
    with pytest.raises(ValueError) as caught:
        env.step(np.array(action, np.float32))
    env.step(np.full(2, 1 + 1e-6, np.float32))  # Rounding is forgiven.
    env.close()
    return str(caught.value)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([0.5, np.nan], "action [0.5 nan] is not finite and within [-1, 1]"),
        ([np.inf, 0.0], "action [inf  0.] is not finite and within [-1, 1]"),
        ([0.0, -1.01], "action [ 0.   -1.01] is not finite and within [-1, 1]"),
        ([0.5], "action [0.5] has shape (1,) instead of (2,)"),
    ],
)
def test_an_action_outside_of_the_space_is_refused(isolated, action, words):
    assert isolated(refusal, action) == words


def frame(keywords):
    env = make_env("dmc_cartpole_swingup", **keywords)
    image = env.reset(seed=0)[0]["image"]
    assert env.render() is image
    env.close()
    return image


def test_only_the_shadow_goes_when_cartpole_has_none(isolated):
    shadows, none = (isolated(frame, {"shadows": on}).astype(int) for on in (True, False))
    difference = np.abs(shadows - none)
    assert difference.max() > 20
    assert (difference.max(-1) > 20).mean() < 0.1


def test_other_sizes(isolated):
    small, large = (isolated(frame, {"size": size}) for size in (64, 128))
    assert large.shape == (128, 128, 3)
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 3  # The same scene.


def check():
    env = make_env("dmc_pendulum_swingup").unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    env.close()
    return [str(warning.message) for warning in caught]


def test_gymnasium_finds_the_environment_sound(isolated):
    # The one exception: it can try other render modes only in environments that it registered.
    assert all("alternative render modes" in message for message in isolated(check))


def observe_both_ways(task):
    """Return what the suite itself observes, and the observations of each kind, after two steps."""
    found = {}
    for obs in ("pixels", "state", "both"):
        env = make_env(task, obs=obs, shadows=False)
        env.reset(seed=5)
        renders = []
        base = env.unwrapped
        render = base.render
        base.render = lambda render=render, renders=renders: renders.append(1) or render()
        for _ in range(2):
            found[obs] = env.step(np.ones(env.action_space.shape, np.float32))[0]
        found[f"{obs} renders"] = len(renders)
        found[f"{obs} render"] = env.render()
        assert found[obs].keys() == env.observation_space.keys()
        assert env.observation_space.contains(found[obs])
        control = base._env._env
        suite = control.task.get_observation(control.physics)
        env.close()
    return {key: np.array(value) for key, value in suite.items()}, found


@pytest.mark.parametrize("task", ["dmc_reacher_easy", "dmc_quadruped_walk"])
def test_pixels_and_state_are_of_the_same_moment(isolated, task):
    suite, found = isolated(observe_both_ways, task)
    flat = [number for value in suite.values() for number in np.ravel(value)]
    for obs in ("state", "both"):
        np.testing.assert_allclose(found[obs]["state"], flat, rtol=1e-6)
        assert found[obs]["state"].dtype == np.float32
    np.testing.assert_array_equal(found["both"]["image"], found["pixels"]["image"])
    np.testing.assert_array_equal(found["state render"], found["pixels"]["image"])
    assert [found[f"{obs} renders"] for obs in ("pixels", "state", "both")] == [2, 0, 2]


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"dmc_cartpole_fly: unknown; .*dmc_cartpole_"):
        make_env("dmc_cartpole_fly")


python = partial(command_line.python, without=["MUJOCO_GL"])


def test_importing_the_package_imports_no_simulator_and_using_it_no_tensorflow():
    code = """if True:
        import sys
        import dreamer_bird.envs.rendering, dreamer_bird.envs.tasks
        heavy = {"dm_control", "mujoco", "OpenGL", "gymnasium", "tensorflow"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        import dreamer_bird.envs.make, dreamer_bird.envs.worker
        dreamer_bird.envs.make.make_env("dmc_cup_catch").reset(seed=0)
        assert not {"tensorflow", "torch", "jax"} & set(sys.modules)
        print("fine", flush=True)
        import os; os._exit(0)
    """
    result = python("-c", code)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr


def drawn(task, *observations, **variables):
    """Make environments with these variables; return what each says, and what it draws."""
    code = f"""if True:
        import os, sys
        import dreamer_bird.envs.rendering as rendering
        find = rendering.find_library
        rendering.find_library = lambda name: None if name == "OSMesa" else find(name)
        from dreamer_bird.envs.make import make_env
        from dreamer_bird.errors import RunError
        sys.unraisablehook = lambda _: None
        for obs in {observations!r}:
            try:
                env = make_env({task!r}, obs=obs)
                env.reset(seed=0)
                print("made", end=" ")
                print(env.render().std() > 5, os.environ["MUJOCO_GL"], flush=True)
            except RunError as error:
                print(error, flush=True)
        os._exit(0)
    """
    return python("-c", code, **{"DISPLAY": "", "PYOPENGL_PLATFORM": "", **variables}).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux")
@pytest.mark.parametrize(
    "variables",
    [
        {"PYOPENGL_PLATFORM": "osmesa"},
        {"MUJOCO_GL": " EGL", "PYOPENGL_PLATFORM": "x11"},
        {"MUJOCO_GL": "True", "DISPLAY": ":77"},
        {"MUJOCO_EGL_DEVICE_ID": " "},
    ],
)
def test_variables_of_opengl_are_made_to_agree(variables):
    told = drawn("dmc_pendulum_swingup", "pixels", "state", **variables)
    assert [line[:13] for line in told.splitlines()] == 2 * ["made True egl"]


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MUJOCO_GL", "Disable", "MUJOCO_GL=Disable is set: unset it"),
        ("MUJOCO_GL", "0", "MUJOCO_GL=0 is set: unset it"),
        ("MUJOCO_GL", "osmesa", "MUJOCO_GL=osmesa: there is no library OSMesa: unset it"),
        ("MUJOCO_GL", "eagle", "MUJOCO_GL=eagle: choose from egl, osmesa, glfw, or unset "),
        ("MUJOCO_GL", "glfw", "MUJOCO_GL=glfw: no display answers, DISPLAY is not set: un"),
        ("MUJOCO_EGL_DEVICE_ID", "x", "MUJOCO_EGL_DEVICE_ID=x: choose from 0"),
        ("MUJOCO_EGL_DEVICE_ID", "99", "MUJOCO_EGL_DEVICE_ID=99: choose from 0"),
    ],
)
def test_an_opengl_that_does_not_work_is_named_with_the_mend(name, value, words):
    told = drawn("dmc_pendulum_swingup", "state", "pixels", **{name: value})
    state, pixels = told.splitlines()
    assert state.startswith(f"made {words}")
    assert pixels.startswith(words)


def test_what_needs_no_opengl_does_not_ask_for_it():
    assert drawn("gym_CartPole-v1", "pixels", MUJOCO_GL="eagle") == "made True disabled\n"
    told = drawn("gym_Hopper-v5", "state", MUJOCO_GL="eagle")
    assert told.startswith("made gym_Hopper-v5: render() raises RuntimeError: ")
    assert told.endswith("(MUJOCO_GL=eagle: choose from egl, osmesa, glfw, or unset it)\n")


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux")
def test_a_machine_without_a_driver_is_told_what_to_install():
    # An empty list of drivers is what a machine with the bare EGL library has.
    told = drawn("dmc_pendulum_swingup", "pixels", __EGL_VENDOR_LIBRARY_DIRS="/nowhere")
    install = "run `sudo apt-get install libegl1 libgl1-mesa-dri libopengl0`"
    assert told == f"no OpenGL that works was found: {install}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="EGL is chosen on Linux")
def test_state_needs_no_driver_until_a_frame_is_asked_for():
    code = """if True:
        import dreamer_bird.envs.rendering as rendering
        find = rendering.find_library
        rendering.find_library = lambda name: None if name == "OSMesa" else find(name)
        from dreamer_bird.envs.make import make_env
        env = make_env("dmc_pendulum_swingup", obs="state")
        print(env.reset(seed=0)[0]["state"].shape)
        env.render()
    """
    result = python("-c", code, __EGL_VENDOR_LIBRARY_DIRS="/nowhere")
    assert result.stdout == "(3,)\n"
    assert "RenderingError: no OpenGL that works was found" in result.stderr
