"""Episodes that are played beside the updates before them: `train.overlap`."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import Any

import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import RunError
from dreamer_bird.training.collector import Collector
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

PATIENCE = 1.0  # seconds in which the thread ends, if its environment answers


class AbandonedError(RunError):
    """Nobody waits for the episode any more."""


class OverlappingCollector(Collector):
    """Plays with a copy of the policy, while the policy itself learns.

    The copy is made when updates become due, and plays all episodes until they are due again; the
    first (in each environment) is played in a thread beside the updates.
    """

    def __init__(self, config: Config, agent: Agent, envs: Sequence[EnvWorker], *others: Any):
        """Take the agent that learns, which is copied, and what a Collector takes."""
        super().__init__(config, Agent(config, envs[0].spec, learns=False), envs, *others)
        self._learner = agent
        self._ahead: tuple[Future[list[Arrays]], Collector] | None = None
        # Lives as long as this object: a worker ends with the thread in which it was restarted.
        self._thread = ThreadPoolExecutor(1)
        self._closed = Event()

    @property
    def copied_weights(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds of the copy."""
        return self._agent.named_variables()

    def restore_copy(self, weights: Arrays, copied_for: int | None) -> None:
        """Take what a checkpoint holds of the copy."""
        self._agent.assign(weights)
        self.copied_for = copied_for

    def play_ahead(self, first: int, count: int) -> None:
        """Copy the policy, and begin to play so many episodes from the number `first` on.

        They count for nothing before `collect` returns them: a run stopped before that plays them
        again, with the same copy of the policy.
        """
        if self.copied_for != first:  # else it was copied when the run was stopped in this block
            theirs = self._learner.named_variables()
            for name, variable in self._agent.named_variables().items():
                variable.assign(theirs[name].read_value())
            self.copied_for = first
        if self._ahead is None and count > 0:
            check, watch = self._check_in_thread, Stopwatch()
            beside = Collector(self._config, self._agent, self._envs, check, watch)
            bad_actions, _, attempt = self.to_save()
            beside.restore([bad_actions, 0, attempt])
            self._ahead = self._thread.submit(beside.collect, first, count), beside

    def collect(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes from the number `first` on; played now, if they were not yet."""
        if self._ahead is None:
            return super().collect(first, count)
        (episodes, beside), self._ahead = self._ahead, None
        try:
            with self.watch("wait"):
                return episodes.result()
        finally:  # a failed attempt counts too
            bad_actions, nonfinite, attempt = beside.to_save()
            self.restore([bad_actions, self.nonfinite_actions + nonfinite, attempt])
            self.watch_ahead = beside.watch

    def close(self) -> None:
        """Give up what is being played ahead."""
        self._closed.set()
        wait(self._ahead[:1] if self._ahead else [], PATIENCE)

    def _check_in_thread(self) -> None:
        self._check()
        if self._closed.is_set():
            raise AbandonedError("the run has ended")
