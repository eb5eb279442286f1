"""Environments by name. Importing this package is cheap: it does not import the simulator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gymnasium

TASKS = (
    "dmc_acrobot_swingup",
    "dmc_cartpole_balance",
    "dmc_cartpole_balance_sparse",
    "dmc_cartpole_swingup",
    "dmc_cartpole_swingup_sparse",
    "dmc_cheetah_run",
    "dmc_cup_catch",
    "dmc_finger_spin",
    "dmc_finger_turn_easy",
    "dmc_finger_turn_hard",
    "dmc_hopper_hop",
    "dmc_hopper_stand",
    "dmc_pendulum_swingup",
    "dmc_quadruped_run",
    "dmc_quadruped_walk",
    "dmc_reacher_easy",
    "dmc_reacher_hard",
    "dmc_walker_run",
    "dmc_walker_stand",
    "dmc_walker_walk",
)


def make_env(
    task: str,
    *,
    action_repeat: int = 2,
    time_limit: int = 1000,
    size: int = 64,
    shadows: bool = True,
) -> gymnasium.Env:
    """Make an environment that observes `{"image": uint8 [size, size, 3]}`.

    `time_limit` counts environment steps, so an episode has `time_limit // action_repeat` agent
    steps. Raises `ValueError` for an unknown task and `RenderingError` where no frame can be
    rendered. Call it in a process that does not import TensorFlow: with software OpenGL the two
    crash each other.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose from {', '.join(TASKS)}")
    from dreamer_bird.envs.rendering import select_backend

    # dm_control reads the variable once, when it is imported.
    os.environ["MUJOCO_GL"] = select_backend()
    from gymnasium.wrappers import TimeLimit

    from dreamer_bird.envs.dmc import DeepMindControl

    _, domain, name = task.split("_", 2)
    env = DeepMindControl(domain, name, action_repeat=action_repeat, size=size, shadows=shadows)
    return TimeLimit(env, time_limit // action_repeat)
