"""Devices and hosts that train one run together: the chief leads, the other hosts follow.

The chief alone plays episodes, keeps the replay, logs and saves. The others hold the same weights,
and compute their part of each update from the batch that the chief sends.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.agent.replicas import from_chief
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.tasks import may_terminate
from dreamer_bird.errors import ConfigError, DeviceMemoryError, RunError
from dreamer_bird.training.distributed.hosts import Hosts, gather
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.signals import Stopped

UPDATE, FINISHED, STOPPED = 1, 0, -1  # what the chief says comes next
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


class LostHostError(RunError):
    """Another host is gone; weights and counters are those after an update."""


class Team:
    """This process among those that train one run, and the devices that it uses."""

    def __init__(self, devices: int, hosts: Hosts):
        """Choose the devices and connect to the other hosts; before TensorFlow is used.

        Raises ConfigError where there are not so many devices, RunError where it is too late.
        """
        self._hosts = hosts
        try:
            self.strategy = _strategy(devices, hosts)
        except RuntimeError as error:
            late = "devices are chosen before TensorFlow computes, so in a process of their own"
            raise RunError(f"{late}: {error}") from error
        self._exchanging = tf.function(self._exchange, autograph=False)

    def build_agent(self, config: Config, spec: Spec) -> Agent:
        """Return an agent whose updates all devices of all hosts share."""
        with self.strategy.scope():
            return Agent(config, spec)

    def share_weights(self, agent: Agent) -> None:
        """Give all hosts the chief's weights and optimizer state; each of them calls this."""
        variables = list(agent.named_variables().values())

        def assign() -> None:
            for variable, value in zip(variables, from_chief(list(variables)), strict=True):
                variable.assign(value)

        if self._hosts.count > 1:
            tf.function(lambda: self.strategy.run(assign), autograph=False)()

    def announce_update(self) -> None:
        """Tell the other hosts that an update follows.

        Raises Stopped if one of them was told to stop, LostHostError if one is gone.
        """
        if self._hosts.count > 1:
            with self.report_lost_host(LostHostError):
                _, stop = self._agree(UPDATE, False)
            if stop:
                raise Stopped(signal.SIGTERM)

    def tell_the_end(self, error: type[BaseException] | None, *_: object) -> None:
        """Tell the other hosts, on leaving a context, how the run ended; wait until they know.

        Nothing is told of an error that may have come within an update, of which they do their
        part: one that nobody foresaw, or a device's memory that was too small.
        """
        between = error is None or issubclass(error, (Stopped, RunError, OSError))
        between &= error is not DeviceMemoryError
        if self._hosts.count > 1 and between:
            word = STOPPED if error else FINISHED
            with suppress(*_LOST):  # there is nothing left in which the lost would be missed
                self._agree(word, False)
                self._agree(word, False)  # has an answer when the first has arrived everywhere

    def follow(self, config: Config, spec: Spec, check: Callable[[], None]) -> None:
        """Take part in the chief's updates until it is through; Stopped if the run was stopped.

        When `check` raises Stopped, the chief learns of it before the next update, and saves.
        """
        agent = self.build_agent(config, spec)
        self.share_weights(agent)
        batch, seed = _empty_batch(config, spec), np.zeros(2, np.int32)
        while (word := self._next_word(check)) == UPDATE:
            agent.train_step(batch, seed)
        with suppress(*_LOST):
            self._agree(word, False)
        if word == STOPPED:
            raise Stopped(signal.SIGTERM)

    @contextmanager
    def report_lost_host(self, kind: type[RunError] = RunError) -> Iterator[None]:
        """Turn an error of TensorFlow's, for which another host is gone, into one of a kind."""
        try:
            yield
        except _LOST as error:
            if self._hosts.count == 1:
                raise
            named = map(int, re.findall(r"/task:(\d+)", str(error)))
            lost = next((each for each in named if each != self._hosts.number), None)
            which = "another" if lost is None else f"{lost} ({self._hosts.addresses[lost]})"
            raise kind(
                f"lost host {which} of this run, which may say why itself; start all of them "
                "again, they go on from the last checkpoint"
            ) from None

    def _next_word(self, check: Callable[[], None]) -> int:
        """Wait for the chief's next word that all hosts act upon."""
        while True:
            word, stop = self._agree(FINISHED, _is_stopped(check))
            if not (word == UPDATE and stop):  # else the chief saves first
                return word

    def _agree(self, word: int, stop: bool) -> tuple[int, int]:
        """Exchange a word of the chief's, and whether any host is to stop, among all hosts."""
        word, stop = self._exchanging(tf.constant(word), tf.constant(int(stop)))
        return int(word), int(stop)

    def _exchange(self, word: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def exchange() -> tuple[tf.Tensor, tf.Tensor]:
            context = tf.distribute.get_replica_context()
            here = tf.identity(stop)  # on the replica's device; a function's argument has none
            return from_chief(word), context.all_reduce(tf.distribute.ReduceOp.SUM, here)

        each = self.strategy.run(exchange)
        return tuple(self.strategy.experimental_local_results(value)[0] for value in each)


@contextmanager
def gathered(config: Config, hosts: Hosts) -> Iterator[Team]:
    """Yield the team when all hosts are there; their loss is an error of one line from then on."""
    if hosts.count > 1:
        print(f"host {hosts.number} of {hosts.count}, waiting for the others", flush=True)
        # All but the logdir, which only the chief uses.
        gather(hosts, json.dumps(config.replace(logdir=None).flatten(), sort_keys=True))
    team = Team(config.devices, hosts)
    with team.report_lost_host():
        yield team


def _strategy(devices: int, hosts: Hosts) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if devices > len(gpus):
            raise ConfigError(f"--devices {devices}: this machine has {len(gpus)} GPUs")
        tf.config.set_visible_devices(gpus[:devices], "GPU")
    if hosts.count > 1:
        if not gpus and devices > 1:
            raise ConfigError(f"--devices {devices}: this one of {hosts.count} hosts has no GPU")
        return tf.distribute.MultiWorkerMirroredStrategy()
    if devices == 1:
        return tf.distribute.get_strategy()
    if not gpus:  # to try it out: parts of the processor, which compute the same
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, parts)
    kind = "GPU" if gpus else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(devices)])


def _empty_batch(config: Config, spec: Spec) -> Arrays:
    """Return what has the shapes and types of the chief's batches."""
    shapes = spec.observation | {"action": (spec.actions,), "reward": (), "discount": ()}
    shapes |= {"first": ()} if may_terminate(config.task) else {}
    dtypes = {"image": np.uint8, "first": np.bool_}
    size = config.replay.batch, config.replay.length
    return {
        key: np.zeros([*size, *shape], dtypes.get(key, np.float32)) for key, shape in shapes.items()
    }


def _is_stopped(check: Callable[[], None]) -> bool:
    try:
        check()
    except Stopped:
        return True
    return False
