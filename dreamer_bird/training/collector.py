"""Plays a run's episodes: again after failures, and with `train.overlap` beside updates."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import random_action
from dreamer_bird.envs.worker import EnvError, EnvWorker, FilmError, WorkerError
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training.driver import Act, collect_episodes
from dreamer_bird.training.watchdog import Streak
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

PATIENCE = 1.0  # seconds in which the thread ends, if its environment answers


class Collector:
    """Plays whole episodes, each a function of weights, seed, numbers and attempt.

    A failure that state and action decide would come again, in this run and whenever it is resumed:
    another attempt at the episode draws other random numbers, in the environment and here.
    """

    def __init__(
        self,
        config: Config,
        agent: Agent,
        envs: Sequence[EnvWorker],
        check: Callable[[], None],
        watch: Stopwatch,
    ):
        """Take who acts and where; `check` is called before each step, and may raise Stopped."""
        self._config, self._agent, self._envs = config, agent, envs
        self._check, self.watch = check, watch
        self.watch_ahead = Stopwatch()  # times of the last episodes that were played ahead
        self._bad_actions = Streak("actions", config.train.max_skipped)
        self._attempt = 0  # at the episode under way; failed ones came before
        self.nonfinite_actions = 0  # since they were last logged
        # What `OverlappingCollector` changes: here no copy acts, and nothing is played ahead.
        self.copied_weights: dict[str, tf.Variable] = {}
        self.copied_for: int | None = None  # the first episode that a copy of the policy plays

    def to_save(self) -> list:
        """Return what a checkpoint keeps of failures."""
        return [self._bad_actions.to_save(), self.nonfinite_actions, self._attempt]

    def restore(self, saved: Sequence) -> None:
        """Go on from what `to_save` returned."""
        bad_actions, self.nonfinite_actions, self._attempt = saved
        self._bad_actions.restore(bad_actions)

    def restore_copy(self, weights: Arrays, copied_for: int | None) -> None:
        """Take what a checkpoint holds of a copy of the policy, where there is one."""

    def play_ahead(self, first: int, count: int) -> None:
        """Begin to play episodes that will be due, where that is wanted."""

    def close(self) -> None:
        """Give up what is being played ahead."""

    def collect(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of the exploring policy, from the number `first` on."""
        act = partial(self._act, purpose="act", number=first, training=True)
        return self.play(act, "environment", range(first, first + count))

    def collect_random(self, first: int, count: int) -> list[Arrays]:
        """Return so many episodes of uniform actions, from the number `first` on."""
        numbers = range(first, first + count)
        return self.play(partial(self._act_at_random, numbers=numbers), "environment", numbers)

    def evaluate(self, episodes: int, step: int) -> Arrays:
        """Return an episode of the policy's mode, with frames where they can be rendered.

        It follows from how many episodes and environment steps were played for training.
        """
        act = partial(self._act, purpose="evaluate", number=episodes, training=False)
        (episode,) = self.play(act, "evaluation environment", [step], film=True)
        return episode

    def play(
        self, act: Act, purpose: str, numbers: Sequence[int], film: bool = False
    ) -> list[Arrays]:
        """Return the episodes with these numbers, played by `act`; try again after failures.

        Up to `worker.restarts` times: with the same seeds if a worker was killed, with new ones if
        an environment raised an error. A failure to render, which `film` asks for, is none.
        """
        bad_actions, nonfinite, _ = self.to_save()
        envs, seed = self._envs[: len(numbers)], self._config.seed
        for restarts_left in reversed(range(self._config.worker.restarts + 1)):
            starts = [seeds.integer(seed, purpose, number, self._attempt) for number in numbers]
            try:
                episodes = collect_episodes(envs, act, starts, self.watch, film)
                self._attempt = 0
                return episodes
            except RunError as error:
                self.restore([bad_actions, nonfinite, self._attempt])
                self._check()  # a signal to the process group may have killed the worker: then stop
                # The same fault is a ConfigError in a new worker, an EnvError once it has stepped.
                if not isinstance(error, WorkerError | ConfigError):
                    raise
                if isinstance(error, FilmError):  # it warned, and films no more
                    for env in envs:
                        env.restart()
                    return self.play(act, purpose, numbers)
                if isinstance(error, EnvError | ConfigError) or not restarts_left:
                    self._attempt += 1
                if not restarts_left:
                    raise
                lines = str(error).splitlines()  # of a traceback the last one says what it was
                reason = lines[0] if len(lines) == 1 else f"{lines[0].rstrip()} {lines[-1]}"
                # Numbered, for Python shows the same words only once.
                which = f"episode {numbers[0] + 1:,}"
                if purpose != "environment":
                    which = f"the evaluation at step {numbers[0]:,}"
                warnings.warn(f"{reason}; {which} begins again in a new worker", stacklevel=2)
                for env in envs:
                    env.restart()

    def _act(
        self, obs: Arrays, state: Any, t: int, *, purpose: str, number: int, training: bool
    ) -> tuple[np.ndarray, Any]:
        """Act by the policy in the episodes from that number on: exploring, or by its mode.

        An action that is not finite is counted and replaced by an idle one, and the policy's state
        begins anew.
        """
        self._check()
        seed = seeds.stateless(self._config.seed, purpose, number, t, self._attempt)
        actions, state = self._agent.act(obs, state, seed, training)
        finite = np.isfinite(actions).all(-1)
        self._bad_actions.count(None if finite.all() else f"the action at agent step {t}")
        self.nonfinite_actions += int((~finite).sum())
        if not finite.all():
            idle = self._envs[0].spec.idle_action()
            actions = np.where(finite[:, None], actions, idle)
            state = self._agent.begin_anew(state, ~finite)
        return actions, state

    def _act_at_random(
        self, obs: Arrays, state: None, t: int, *, numbers: Sequence[int]
    ) -> tuple[np.ndarray, None]:
        """Act uniformly in the episodes with these numbers."""
        self._check()
        seed, space = self._config.seed, self._envs[0].facts.action_space
        draws = (seeds.generator(seed, "prefill", each, t, self._attempt) for each in numbers)
        return np.stack([random_action(space, draw) for draw in draws]), None


class OverlappingCollector(Collector):
    """Plays with a copy of the policy, while the policy itself learns.

    The copy is made when updates become due, and plays all episodes until they are due again; the
    first (in each environment) is played in a thread beside the updates.
    """

    def __init__(self, config: Config, agent: Agent, envs: Sequence[EnvWorker], *others: Any):
        """Take the agent that learns, which is copied, and what a Collector takes."""
        # A copy sees one device, where the agent that learns may share updates among several.
        copied = config if agent.compiled else config.replace(xla="false")
        super().__init__(config, Agent(copied, envs[0].spec, learns=False), envs, *others)
        self._learner = agent
        self.copied_weights = self._agent.named_variables()
        self._ahead: tuple[Future[list[Arrays]], Collector] | None = None
        # Lives as long as this object: a worker ends with the thread in which it was restarted.
        self._thread = ThreadPoolExecutor(1)
        self._closed = Event()

    def restore_copy(self, weights: Arrays, copied_for: int | None) -> None:
        """Take what a checkpoint holds of the copy, or a copy now if it was made by `import`."""
        if weights:
            self._agent.assign(weights)
        else:
            self._copy()
        self.copied_for = copied_for

    def play_ahead(self, first: int, count: int) -> None:
        """Copy the policy, and begin to play so many episodes from the number `first` on.

        They count for nothing before `collect` returns them: a run stopped before that plays them
        again, with the same copy of the policy.
        """
        if self.copied_for != first:  # else it was copied when the run was stopped in this block
            self._copy()
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

    def _copy(self) -> None:
        theirs = self._learner.named_variables()
        for name, variable in self.copied_weights.items():
            variable.assign(theirs[name].read_value())

    def _check_in_thread(self) -> None:
        self._check()
        if self._closed.is_set():
            raise RunError("the run has ended")  # nobody waits for the episode any more
