"""Names of tasks: which there are, and what is told of one that is not."""

import sys

import gymnasium
import pytest
from command_line import python

from dreamer_bird.envs import custom
from dreamer_bird.envs.custom import register
from dreamer_bird.envs.make import make_env
from dreamer_bird.envs.tasks import check_task, default_action_repeat, may_terminate
from dreamer_bird.errors import ConfigError


def factory():
    """Stand in for a function that makes an environment."""


@pytest.fixture
def registered():
    register("my-task", factory)
    yield
    del custom.FACTORIES["my-task"]


@pytest.mark.parametrize(
    ("task", "repeat", "terminates"),
    [
        ("dmc_cartpole_swingup", 2, False),
        ("dmc_lqr_lqr_6_2", 2, True),
        ("gym_Pendulum-v1", 1, True),
        ("gym_ale_py:ALE/Pong-v5", 1, True),
        ("json:loads", 1, True),
        ("gym_tools:make", 1, True),
        ("my-task", 1, True),
    ],
)
def test_families_differ_in_action_repeat_and_ends(registered, task, repeat, terminates):
    if not task.startswith("gym_"):
        check_task(task)
    assert default_action_repeat(task) == repeat
    assert may_terminate(task) == terminates


def test_atari_repeats_actions_four_times():
    assert (default_action_repeat("atari_pong"), may_terminate("atari_pong")) == (4, True)


@pytest.mark.parametrize("task", ["gym_Pendulum-v1", "gym_json:Any-v3", "json:nothing"])
def test_a_task_that_may_exist_passes_without_running_code(task):
    check_task(task)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("dmc_cartpole_swingdown", "unknown; did you mean dmc_cartpole_swingup"),
        ("cartpole_swingup", "unknown; did you mean dmc_cartpole_swingup"),
        ("pong", "unknown; did you mean atari_pong"),
        ("my_tusk", "unknown; did you mean my-task"),
        ("gym_Pendulm-v1", "not registered; did you mean gym_Pendulum-v1"),
        ("gym_Pendulum", "not registered; did you mean gym_Pendulum-v1"),
        ("gym_zzz", "not registered; `gymnasium.pprint_registry()` lists what is"),
        ("gym_zzz:A-v1", "there is no module zzz in "),
        ("zzz.envs:make", "there is no module zzz in "),
        ("atari_spaceinvaders", "unknown; did you mean atari_space_invaders"),
        ("", "unknown; Tasks are dmc_<domain>_<task>, gym_<EnvId>, atari_<game>, <module>:<fact"),
        ("json:", "unknown; "),
        ("gym_ALE/Pong-v5", "did you mean atari_pong?"),
        ("PongNoFrameskip-v4", "did you mean atari_pong?"),
        ("atari_SpaceInvaders", "did you mean atari_space_invaders?"),
        ("walker-walk", "did you mean dmc_walker_walk?"),
        ("gym_dm_control/fish-swim-v0", "did you mean dmc_fish_swim?"),
        ("dmc_HalfCheetah-v5", "did you mean gym_HalfCheetah-v5?"),
        ("cartpole", "did you mean gym_CartPole-v1?"),
        ("dmc_zzz", "unknown; choose from dmc_acrobot_swingup, dmc_cartpole_balance, "),
        ("atari_zzz", "unknown; --help-all lists the games"),
    ],
)
def test_an_unknown_task_is_told_in_one_line_with_the_nearest(registered, monkeypatch, task, words):
    for env_id in [each for each in gymnasium.registry if each.startswith("ALE/")]:
        monkeypatch.delitem(gymnasium.registry, env_id)  # of tests that played a game before
    with pytest.raises(ValueError) as caught:
        check_task(task)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="^" + task):
        make_env(task)


def test_every_environment_of_gymnasium_is_a_task():
    assert len(gymnasium.registry) > 30
    for env_id in gymnasium.registry:
        check_task(f"gym_{env_id}")


def test_a_missing_ale_py_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ValueError, match=r"^needs ale-py: run `pip install '\.\[atari\]'`$"):
        check_task("atari_pong")
    with pytest.raises(ValueError, match=r"^unknown; did you mean atari_pong"):
        check_task("atari_ping")


def test_checking_a_task_imports_no_more_than_it_needs():
    code = """if True:
        import sys
        from dreamer_bird.envs.custom import register
        from dreamer_bird.envs.tasks import check_task
        for task in ("dmc_cup_catch", "atari_pong", "json:loads"):
            try:
                check_task(task)
            except ValueError as error:
                assert "ale-py" in str(error), error
        heavy = {"gymnasium", "ale_py", "dm_control", "mujoco", "numpy", "tensorflow", "json"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = python("-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", ["gym_mine", "dmc_x", "atari_x", "a:b", "a/b", "", "a b"])
def test_a_name_that_belongs_to_others_cannot_be_registered(name):
    with pytest.raises(ConfigError, match="a name has letters, digits, _ and - only"):
        register(name, factory)


def test_what_another_process_cannot_import_cannot_be_registered():
    with pytest.raises(ConfigError, match=r"register\('mine'\): <function .*<lambda>.* cannot be"):
        register("mine", lambda: None)
