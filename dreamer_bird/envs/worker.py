"""Environments in processes of their own, because TensorFlow and software OpenGL crash in one."""

import math
import multiprocessing
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import gymnasium
import numpy as np

from dreamer_bird.envs.server import serve
from dreamer_bird.envs.spaces import Facts, OneHot, Spec
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.processes import signal_behind, spawning

SLICE = 0.25  # seconds of a wait for a worker, at once


class WorkerError(RunError):
    """An environment that failed, died or hung; the message names its worker and says how."""


class EnvError(WorkerError):
    """What the environment itself raised; from the same state and action it would come again."""


class FilmError(WorkerError):
    """A worker that an image has cost, which nobody needs."""


class EnvWorker(AbstractContextManager):
    """An environment with dictionary observations, in a process that does not import TensorFlow.

    `make` is a picklable function without arguments that returns the environment. The constructor
    does not wait for it, so several workers start side by side. `timeout` is the longest wait for
    an answer, in seconds in which this process ran. Every method raises `WorkerError` when the
    worker dies or hangs, `EnvError` with what the environment raises, and the `ConfigError` with
    which it refuses to start; so do facts and spec, for which the first look waits.
    """

    def __init__(self, name: str, make: Callable[[], gymnasium.Env], timeout: float = 60.0):
        self._name, self._make, self._timeout = name, pickle.dumps(make), timeout
        self.films = True  # until an image cannot be had
        self.env_step = 0  # environment steps of the episode so far, which an early end cuts short
        self._start()

    @property
    def facts(self) -> Facts:
        """What the worker's process told of the environment when it was made."""
        if self._facts is None:
            self._facts = self._receive()
        return self._facts

    @property
    def spec(self) -> Spec:
        """What an agent must know of the environment."""
        observation, actions, *_ = self.facts
        shapes = {key: space.shape for key, space in observation.items()}
        return Spec(shapes, actions.shape[0], isinstance(actions, OneHot))

    def restart(self) -> None:
        """Put a new process in the place of one that failed; its episode is lost."""
        self.close()
        self._start()

    def reset(self, seed: int) -> Arrays:
        """Start an episode that is a function of the seed and return its first observation."""
        self.reset_async(seed)
        return self.reset_wait()

    def reset_async(self, seed: int) -> None:
        """Begin what `reset_wait` will finish; work done in between overlaps it."""
        self._begin("reset", seed)

    def reset_wait(self) -> Arrays:
        """Return what `reset` returns, for the one that `reset_async` began."""
        observation, self.env_step = self._finish("reset"), 0
        return observation

    def step(self, action: np.ndarray) -> tuple[Arrays, float, bool, bool]:
        """Take one agent step; return the observation, reward, terminated and truncated."""
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: np.ndarray) -> None:
        """Begin what `step_wait` will finish; work done in between overlaps it."""
        # A TensorFlow tensor would make the worker import TensorFlow.
        self._begin("step", np.asarray(action))

    def step_wait(self) -> tuple[Arrays, float, bool, bool]:
        """Return what `step` returns, for the one that `step_async` began."""
        *answer, env_steps = self._finish("step")
        self.env_step += env_steps
        return tuple(answer)

    def render(self) -> np.ndarray:
        """Return an image of the present state, uint8 `[H, W, 3]`.

        Raises `EnvError` where there is none; the episode can go on.
        """
        self._begin("render", None)
        answer = self._finish("render")
        if isinstance(answer, str):
            raise EnvError(answer)
        return answer

    def film(self) -> np.ndarray | None:
        """Return what `render` returns, None where there is nothing; warn the first time, and why.

        Raises `FilmError` where the attempt has ended the worker.
        """
        if not self.films:
            return None
        try:
            return self.render()
        except WorkerError as error:
            self.films = False
            warnings.warn(f"no images are rendered: {error}", stacklevel=2)
            if self._connection.closed:
                raise FilmError(str(error)) from error
            return None

    def leave(self) -> None:
        """Have the process end by itself, without waiting for it as `close` does."""
        self._connection.close()

    def close(self) -> None:
        """End the process, by force after a second; does nothing the second time."""
        self._end()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._facts: Facts | None = None
        self._begun: str | None = None
        # `fork` would copy the learner with TensorFlow and its threads into the worker.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = theirs, self._make, os.getpid()
        self._process = context.Process(target=serve, args=arguments, name=self._name, daemon=True)
        with spawning():
            self._process.start()
        theirs.close()  # Or the end of the worker would not end the stream.
        # At exit too, where Python waits for a process that nobody has ended, for ever.
        self._end = Finalize(self, _end, (self._connection, self._process), exitpriority=1)
        self._title = f"environment worker {self._name!r} (pid {self._process.pid})"

    def _begin(self, method: str, argument: Any) -> None:
        _ = self.facts  # they come before any answer
        if self._begun:
            raise RuntimeError(f"{self._title}: {method} was called before {self._begun}_wait")
        if self._connection.closed:
            raise WorkerError(f"{self._title} is closed")
        # A worker that has died may still have left a message, which `_receive` finds.
        with suppress(OSError):
            self._connection.send((method, argument))
        self._begun = method

    def _finish(self, method: str) -> Any:
        if self._begun != method:
            raise RuntimeError(f"{self._title}: {method}_wait was called without {method}_async")
        self._begun = None
        return self._receive()

    def _receive(self) -> Any:
        if self._connection.closed:
            raise WorkerError(f"{self._title} is closed")
        # Short waits, each of which counts as no longer than it should be: time in which this
        # process was suspended, and the worker with it, is none in which the worker hung.
        count = math.ceil(self._timeout / SLICE)
        if not any(wait([self._connection], self._timeout / count) for _ in range(count)):
            self.close()
            raise WorkerError(f"{self._title} gave no answer within {self._timeout:g} s")
        try:
            problem, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            code = self._process.exitcode
            self.close()
            name = signal_behind(code)
            cause = f"signal {name}" if name else f"exit code {code}"
            raise WorkerError(f"{self._title} died: {cause}") from None
        if problem:
            self.close()
            if problem is Exception:
                raise EnvError(f"{self._title} failed: {answer}")
            raise problem(answer) if problem is ConfigError else EnvError(answer)
        return answer


def _end(connection: Connection, process: BaseProcess) -> None:
    connection.close()  # The worker takes the end of the stream as its signal to leave.
    process.join(1.0)
    process.kill()
    process.join(1.0)
