"""Makes updates with replicas on parts of the processor; run as a script, in a process of its own.

    python tests/helpers/updating.py OUT.npz REPLICAS[,REPLICAS] [flags of run.py]

writes metrics, weights and moments after each of three updates, for each number of replicas.
"""

import sys

import numpy as np

from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.config import load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.utils import seeds

BATCH, LENGTH, ACTIONS, STATE = 4, 6, 3, 5


def batch(spec, joined):
    """Return a batch that is the same in every process."""
    rng, shape = np.random.default_rng(0), (BATCH, LENGTH)
    values = {
        "action": rng.uniform(-1, 1, (*shape, ACTIONS)),
        "reward": rng.normal(size=shape),
        "discount": rng.integers(0, 2, shape),
        "state": rng.normal(size=(*shape, STATE)),
    }
    arrays = {key: value.astype(np.float32) for key, value in values.items()}
    arrays["image"] = rng.integers(0, 256, (*shape, 64, 64, 3), dtype=np.uint8)
    arrays["first"] = rng.integers(0, 3, shape) == 0
    keys = {*spec.observation, "action", "reward", "discount", *(["first"] if joined else [])}
    return {key: arrays[key] for key in sorted(keys)}


def agent_of(replicas, config, spec):
    """Return an agent whose updates so many parts of the processor share."""
    import tensorflow as tf

    from dreamer_bird.agent.agent import Agent

    names = [f"CPU:{number}" for number in range(replicas)]
    several = replicas > 1
    strategy = tf.distribute.MirroredStrategy(names) if several else tf.distribute.get_strategy()
    with strategy.scope():
        return Agent(config, spec), strategy


def updates(agent, strategy, batch):
    """Yield what two updates leave, by name, and a third, of which a replica gets a NaN."""
    for update in (1, 2, 3):
        if update == 3:
            batch["reward"][-1, -1] = np.nan
        metrics = agent.train_step(batch, seeds.stateless(0, "test", update))
        yield from ((f"{update}/metrics/{key}", value.numpy()) for key, value in metrics.items())
        for name, variable in agent.named_variables().items():
            copies = [each.numpy() for each in strategy.experimental_local_results(variable)]
            assert len(copies) == strategy.num_replicas_in_sync
            assert all(copy.tobytes() == copies[0].tobytes() for copy in copies), name
            yield f"{update}/variables/{name}", copies[0]


def main(out, numbers, *flags):
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    numbers = [int(number) for number in numbers.split(",")]
    parts = [tf.config.LogicalDeviceConfiguration()] * max(numbers)
    tf.config.set_logical_device_configuration(cpu, parts)
    values, presets = parse_flags(list(flags))
    config = load({"precision": "float32", "model.free_nats": 0, **values}, ["debug", *presets])
    shapes = {"pixels": {"image": (64, 64, 3)}, "state": {"state": (STATE,)}}[config.obs]
    gym = config.task.startswith("gym_")
    spec = Spec(shapes, ACTIONS, discrete=gym)
    found = {}
    for number in numbers:
        agent, strategy = agent_of(number, config, spec)
        left = updates(agent, strategy, batch(spec, joined=gym))
        found |= {f"{number}/{name}": value for name, value in left}
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
