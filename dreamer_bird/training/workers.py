"""The worker processes that a configuration asks for."""

from dreamer_bird.config import Config
from dreamer_bird.envs import environment
from dreamer_bird.envs.worker import EnvWorker


def start_worker(config: Config, name: str) -> EnvWorker:
    """Start a worker of that name with the environment of a run; does not wait for it."""
    make = environment(config.task, obs=config.obs, **config.env)
    return EnvWorker(name, make, config.worker.timeout)
