"""Environments by name. Importing this package is cheap: it imports no simulator."""

from dreamer_bird.envs.custom import read_kwargs as read_kwargs
from dreamer_bird.envs.custom import register as register
from dreamer_bird.envs.make import environment as environment
from dreamer_bird.envs.make import make_env as make_env
from dreamer_bird.envs.tasks import EPISODE as EPISODE
from dreamer_bird.envs.tasks import GAMES as GAMES
from dreamer_bird.envs.tasks import OBSERVATIONS as OBSERVATIONS
from dreamer_bird.envs.tasks import SUITE as SUITE
from dreamer_bird.envs.tasks import TASKS as TASKS
from dreamer_bird.envs.tasks import check_task as check_task
from dreamer_bird.envs.tasks import default_action_repeat as default_action_repeat
from dreamer_bird.envs.tasks import default_time_limit as default_time_limit
from dreamer_bird.envs.tasks import may_terminate as may_terminate
