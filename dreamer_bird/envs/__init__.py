"""Environments by name. Importing this package is cheap: it imports no simulator."""

from dreamer_bird.envs.custom import register
from dreamer_bird.envs.make import environment, make_env
from dreamer_bird.envs.tasks import (
    GAMES,
    OBSERVATIONS,
    TASKS,
    check_task,
    default_action_repeat,
    may_terminate,
)

__all__ = [
    "GAMES",
    "OBSERVATIONS",
    "TASKS",
    "check_task",
    "default_action_repeat",
    "environment",
    "make_env",
    "may_terminate",
    "register",
]
