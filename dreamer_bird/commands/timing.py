"""What other commands time: updates and actions of an agent on random numbers, and steps."""

import time
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.tasks import OBSERVATIONS
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays

if TYPE_CHECKING:
    from dreamer_bird.agent.agent import Agent
    from dreamer_bird.agent.world_model import Batch
    from dreamer_bird.envs.worker import EnvWorker

STATE = 6  # dimensions of the random batch's state


def spec_of(config: Config) -> Spec:
    """Return what an environment would tell of itself, with one action and a short state."""
    shapes = {"image": (config.env.size, config.env.size, 3), "state": (STATE,)}
    return Spec({key: shapes[key] for key in OBSERVATIONS[config.obs]}, actions=1)


def time_updates(config: Config) -> Iterator[float]:
    """Train on one random batch `[B, T, ...]` again and again; yield the seconds of each update.

    The first one, which is traced, takes far longer than the others.
    """
    agent, batch = agent_of(config), random_batch(config)
    for number in count():
        start = time.perf_counter()
        metrics = agent.train_step(batch, seeds.stateless(0, "bench", number))
        metrics["model_loss"].numpy()  # On a GPU it would not have been computed yet.
        yield time.perf_counter() - start


def time_actions(config: Config) -> Iterator[float]:
    """Act for `envs` environments at once again and again; yield the seconds of each agent step."""
    from dreamer_bird.agent.agent import Agent

    spec, state, rng = spec_of(config), None, np.random.default_rng(0)
    agent = Agent(config, spec, learns=False)
    for number in count():
        obs = random_observations(spec, (config.envs,), rng)
        start = time.perf_counter()
        _, state = agent.act(obs, state, seeds.stateless(0, "bench", number), True)
        yield time.perf_counter() - start


def time_steps(env: "EnvWorker") -> Iterator[float]:
    """Step an environment again and again; yield the seconds of each agent step, without resets.

    The first one sets the renderer up.
    """
    action, ended = env.spec.idle_action(), True
    for number in count():
        if ended:
            env.reset(number)
        start = time.perf_counter()
        *_, terminated, truncated = env.step(action)
        yield time.perf_counter() - start
        ended = terminated or truncated


def agent_of(config: Config) -> "Agent":
    """Return an agent whose updates are whole, the actor's part of them too, from the first on."""
    from dreamer_bird.agent.agent import Agent

    return Agent(config.replace(actor={**config.actor, "learning_starts": 0}), spec_of(config))


def random_batch(config: Config) -> "Batch":
    """Return a batch `[B, T, ...]`, on the device that TensorFlow would choose."""
    import tensorflow as tf

    rng, shape = np.random.default_rng(0), (config.replay.batch, config.replay.length)
    batch = {
        **random_observations(spec_of(config), shape, rng),
        "action": rng.uniform(-1, 1, (*shape, 1)).astype(np.float32),
        "reward": rng.uniform(size=shape).astype(np.float32),
        "discount": np.ones(shape, np.float32),
    }
    return {key: tf.convert_to_tensor(value) for key, value in batch.items()}


def random_observations(spec: Spec, shape: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    """Draw what an environment might observe, under leading dimensions of that shape."""
    draw = {
        "image": lambda shape: rng.integers(0, 256, shape, np.uint8),
        "state": lambda shape: rng.normal(size=shape).astype(np.float32),
    }
    return {key: draw[key]((*shape, *size)) for key, size in spec.observation.items()}
