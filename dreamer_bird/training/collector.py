"""Training episodes, played when they are due or ahead: beside the updates before them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event

import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import RunError
from dreamer_bird.training.driver import Act
from dreamer_bird.training.player import Player
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

PATIENCE = 1.0  # seconds in which the thread ends, if its environment answers


class AbandonedError(RunError):
    """Nobody waits for the episode any more."""


class Collector:
    """Plays the episodes that the replay is given, numbered from 0.

    Without `train.overlap` each is played when it is due, by the policy as it is. With it, all
    episodes until the next block of updates are played by a copy of the policy, as it was when the
    block before them began; the first (in each environment) is played in a thread meanwhile.
    """

    def __init__(
        self,
        config: Config,
        spec: Spec,
        agent: Agent,
        envs: Sequence[EnvWorker],
        check: Callable[[], None],
        watch: Stopwatch,
    ):
        """Take the agent that learns; `check` is called before each step, and may raise Stopped."""
        self._idle = spec.idle_action()
        self._overlaps = config.train.overlap
        self._learner, self._envs = agent, envs
        self._actor = Agent(config, spec, learns=False) if self._overlaps else agent
        limits = config.worker.restarts, config.train.max_skipped
        self.player = Player(self._actor, config.seed, *limits, check)
        self._check, self._watch = check, watch
        self.watch_ahead = Stopwatch()  # of the last episodes that were played ahead
        self.copied_for: int | None = None  # the first episode that the copied policy plays
        self._ahead: tuple[Future[tuple[list[Arrays], Stopwatch]], Player] | None = None
        # Lives as long as this object: a worker ends with the thread in which it was restarted.
        self._thread = ThreadPoolExecutor(1)
        self._closed = Event()

    @property
    def copied_weights(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds of the copied policy, none where there is no copy."""
        return self._actor.named_variables() if self._overlaps else {}

    def restore(self, weights: Arrays, copied_for: int | None) -> None:
        """Take over what a checkpoint holds of the copied policy."""
        if self._overlaps:
            self._actor.assign(weights)
            self.copied_for = copied_for

    def play_ahead(self, first: int, count: int) -> None:
        """Begin to play so many episodes from the number `first` on, where that is wanted.

        They count for nothing before `collect` returns them: a run stopped before that plays them
        again, with the same copy of the policy.
        """
        if not self._overlaps:
            return
        if self.copied_for != first:  # else it was copied when the run was stopped in this block
            theirs = self._learner.named_variables()
            for name, variable in self._actor.named_variables().items():
                variable.assign(theirs[name].read_value())
            self.copied_for = first
        if self._ahead is None and count > 0:
            player = self.player.fork(self._check_in_thread)
            self._ahead = self._thread.submit(self._play_in_thread, player, first, count), player

    def collect(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes from the number `first` on; played now, if they were not yet."""
        if self._ahead is None:
            act = self._policy(self.player, first)
            return self._play(self.player, act, first, count, self._watch)
        (ahead, player), self._ahead = self._ahead, None
        try:
            with self._watch("wait"):
                episodes, self.watch_ahead = ahead.result()
        finally:
            self.player.take_over(player)  # a failed attempt counts too
        return episodes

    def collect_random(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of random actions."""
        act = self.player.random(self._envs[0].action_space, first)
        return self._play(self.player, act, first, count, self._watch)

    def close(self) -> None:
        """Give up what is being played ahead."""
        self._closed.set()
        wait(self._ahead[:1] if self._ahead else [], PATIENCE)

    def _play_in_thread(
        self, player: Player, first: int, count: int
    ) -> tuple[list[Arrays], Stopwatch]:
        watch = Stopwatch()
        return self._play(player, self._policy(player, first), first, count, watch), watch

    def _check_in_thread(self) -> None:
        self._check()
        if self._closed.is_set():
            raise AbandonedError("the run has ended")

    def _policy(self, player: Player, first: int) -> Act:
        return player.policy("act", first, training=True, idle=self._idle)

    def _play(
        self, player: Player, act: Act, first: int, count: int, watch: Stopwatch
    ) -> list[Arrays]:
        numbers = range(first, first + count)
        return player.play(self._envs[:count], act, "environment", numbers, watch)
