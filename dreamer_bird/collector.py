"""Training episodes, played when they are due or ahead: beside the updates before them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import tensorflow as tf

from dreamer_bird import seeds
from dreamer_bird.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.driver import Act
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.player import Player
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays


class Collector:
    """Plays the episodes that the replay is given, numbered from 0.

    With `train.overlap` they are played beside the block of updates before them, by a copy of the
    policy as it was when that block began; without, by the policy as it is, when they are due.
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
        self._seed, self._overlaps, self._idle = (
            config.seed,
            config.train.overlap,
            spec.idle_action(),
        )
        self._learner, self._envs = agent, envs
        self._actor = Agent(config, spec, learns=False) if self._overlaps else agent
        limits = config.worker.restarts, config.train.max_skipped
        self.player = Player(self._actor, config.seed, *limits, check)
        self._watch, self.watch_ahead = watch, Stopwatch()
        self.copied_for: int | None = None  # the episode that the copied policy is to play next
        self._ahead: Future[tuple[list[Arrays], Player]] | None = None
        self._thread = ThreadPoolExecutor(1)

    @property
    def copied_weights(self) -> dict[str, tf.Variable]:
        """What a checkpoint holds of the copied policy, none where there is no copy."""
        return self._actor.named_variables() if self._overlaps else {}

    def restore(self, weights: Arrays, copied_for: int | None) -> None:
        """Take over what a checkpoint holds of the copied policy."""
        if weights and self._overlaps:
            self._actor.assign(weights)
            self.copied_for = copied_for

    def collect(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes from the number `first` on; now, if they were not played yet."""
        if self._ahead:
            episodes, player = self._ahead.result()
            self._ahead = None
            self.player.take_over(player)
            return episodes
        self._copy_policy(first)
        return self._play(self.player, self._policy(self.player, first), first, count, self._watch)

    def collect_random(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of random actions."""
        act = self.player.random(self._envs[0].action_space, first)
        return self._play(self.player, act, first, count, self._watch)

    @contextmanager
    def ahead(self, first: int, count: int) -> Iterator[None]:
        """Play the next episodes beside what is done in this context, where that is wanted.

        Nothing goes on when it is left. They count for nothing before `collect` returns them: a run
        stopped before that plays them again, with the same copy of the policy.
        """
        if self._overlaps and self._ahead is None and count > 0:
            self._copy_policy(first)
            self._ahead = self._thread.submit(self._play_ahead, self.player.fork(), first, count)
        try:
            yield
        finally:
            if self._ahead:
                with self._watch("wait"):
                    wait([self._ahead])

    def _play_ahead(self, player: Player, first: int, count: int) -> tuple[list[Arrays], Player]:
        act = self._policy(player, first)
        return self._play(player, act, first, count, self.watch_ahead), player

    def _policy(self, player: Player, first: int) -> Act:
        return player.policy("act", first, training=True, idle=self._idle)

    def _play(
        self, player: Player, act: Act, first: int, count: int, watch: Stopwatch
    ) -> list[Arrays]:
        numbers = range(first, first + count)
        starts = [seeds.integer(self._seed, "environment", number) for number in numbers]
        return player.play(self._envs[:count], act, starts, watch)

    def _copy_policy(self, first: int) -> None:
        """Copy the policy as it is, unless a copy was made for these episodes before."""
        if self._overlaps and self.copied_for != first:
            theirs = self._learner.named_variables()
            for name, variable in self._actor.named_variables().items():
                variable.assign(theirs[name].read_value())
            self.copied_for = first
