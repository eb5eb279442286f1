"""One task, one name; and what paths tell."""

import pytest

from dreamer_bird.analysis.names import canonical_task, names_of


@pytest.mark.parametrize(
    ("task", "spellings"),
    [
        (
            "dmc_cup_catch",
            "cup_catch ball_in_cup_catch cup-catch ball_in_cup-catch dmc_ball_in_cup_catch "
            "dm_control/ball_in_cup-catch-v0 dmcontrol-cup-catch DMC_cup_catch",
        ),
        (
            "dmc_walker_walk",
            "dmc_walker_walk walker-walk dm_control/walker_walk dmc_vision_walker_walk WalkerWalk",
        ),
        ("dmc_humanoid_walk", "humanoid_walk dmc_humanoid_walk dm-control/humanoid-walk-v0"),
        ("dmc_cheetah_run_backwards", "cheetah-run-backwards"),
        ("gym_Pendulum-v1", "Pendulum-v1 gym_Pendulum-v1"),
        ("gym_HumanoidStandup-v4", "HumanoidStandup-v4"),
        (
            "atari_space_invaders",
            "atari_space_invaders SpaceInvadersNoFrameskip-v4 ALE/SpaceInvaders-v5 "
            "atari100k_space_invaders atari_spaceinvaders space_invaders",
        ),
        ("gym_ale_py:ALE/Pong-v5", "gym_ale_py:ALE/Pong-v5"),  # with other frames than atari_pong
        ("my_module:make", "my_module:make"),
        ("mw-push", "mw-push"),
    ],
)
def test_a_task_has_one_name(task, spellings):
    assert {canonical_task(spelling) for spelling in spellings.split()} == {task}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("c/ball_in_cup_catch/bird/0", ("dmc_cup_catch", "bird", "0")),
        ("walker-walk/1/default", ("dmc_walker_walk", "default", "1")),
        ("tdmpc2/walker-walk-backwards", ("dmc_walker_walk_backwards", "tdmpc2", "0")),
        ("ppo/Pendulum-v1_3", ("gym_Pendulum-v1", "ppo", "3")),
        ("runs/CartPole-v1__ppo__2__1672531200", ("gym_CartPole-v1", "ppo", "2")),
        ("x/task=dmc_cheetah_run,variant=bird,seed=1", ("dmc_cheetah_run", "bird", "1")),
        (
            "exp_local/2021.10.10/123456_task=walker_walk,seed=3",
            ("dmc_walker_walk", "exp_local", "3"),
        ),
        ("variant=soft_bird_task=cup-catch_seed=2", ("dmc_cup_catch", "soft_bird", "2")),
        ("agent=bird,env=cup_catch,seed=2,agent.lr=0.001", ("dmc_cup_catch", "bird,lr=0.001", "2")),
        ("variant=bird,task=dmc_cheetah_run/seed=3", ("dmc_cheetah_run", "bird", "3")),
        ("dmc_cheetah_run/bird/2024-05-06_07-08-09", ("dmc_cheetah_run", "bird", "0")),
        ("bird/20240506T070809", ("unknown", "bird", "0")),
        ("walker_walk_study/Pendulum-v1/ppo/3", ("gym_Pendulum-v1", "ppo", "3")),
        ("walker_walk/Dreamer-v3/0", ("dmc_walker_walk", "Dreamer-v3", "0")),
        ("walker_walk/x/cup_catch/1", ("dmc_cup_catch", "x", "1")),
        ("dmc_study/bird_walker_walk/1", ("dmc_walker_walk", "bird", "1")),
        ("gym_runs/walker_walk-dreamer/0", ("dmc_walker_walk", "dreamer", "0")),
        ("dmc_vision/walker_walk-1", ("dmc_walker_walk", "dmc_vision", "1")),
        ("Dreamer-v3/walker_walk_s1", ("dmc_walker_walk", "Dreamer-v3", "1")),
        ("dmc_ablation/Hopper-v4_sac/0", ("gym_Hopper-v4", "sac", "0")),
    ],
)
def test_a_path_tells_task_method_and_seed(path, names):
    assert tuple(names_of(path.split("/"), depth=0).values()) == names
