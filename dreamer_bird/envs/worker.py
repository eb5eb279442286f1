"""Environments in processes of their own, because TensorFlow and software OpenGL crash in one."""

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import gymnasium
import numpy as np

from dreamer_bird.errors import RunError

Observation = dict[str, np.ndarray]


class WorkerError(RunError):
    """An environment that failed, died or hung; the message names its worker and says how."""


class EnvWorker:
    """An environment with dictionary observations, in a process that does not import TensorFlow.

    `make` is a picklable function without arguments that returns the environment. The constructor
    does not wait for it, so several workers start side by side. `timeout` is the longest wait for
    an answer, in seconds. Every method raises `WorkerError` when the worker fails, dies or hangs.
    """

    def __init__(self, name: str, make: Callable[[], gymnasium.Env], timeout: float = 60.0):
        self._name, self._make, self._timeout = name, pickle.dumps(make), timeout
        self._start()

    @property
    def observation_space(self) -> gymnasium.spaces.Dict:
        """The environment's space of observations."""
        return self._ready()[0]

    @property
    def action_space(self) -> gymnasium.spaces.Box:
        """The environment's space of actions."""
        return self._ready()[1]

    def restart(self) -> None:
        """Put a new process in the place of one that failed; its episode is lost."""
        self.close()
        self._start()

    def reset(self, seed: int) -> Observation:
        """Start an episode that is a function of the seed and return its first observation."""
        self._send("reset", seed)
        return self._receive()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool]:
        """Take one agent step; return the observation, reward, terminated and truncated."""
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: np.ndarray) -> None:
        """Begin an agent step that `step_wait` will finish; work done in between overlaps it."""
        # A TensorFlow tensor would make the worker import TensorFlow.
        self._send("step", np.asarray(action))
        self._stepping = True

    def step_wait(self) -> tuple[Observation, float, bool, bool]:
        """Return what `step` returns, for the step that `step_async` began."""
        if not self._stepping:
            raise RuntimeError(f"{self._title}: step_wait was called without step_async")
        self._stepping = False
        return self._receive()

    def close(self) -> None:
        """End the process, by force after a second; does nothing the second time."""
        self._connection.close()  # The worker takes the end of the stream as its signal to leave.
        self._process.join(1.0)
        self._process.kill()
        self._process.join(1.0)

    def __enter__(self) -> "EnvWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        self._spaces: tuple[gymnasium.spaces.Dict, gymnasium.spaces.Box] | None = None
        self._stepping = False
        # `fork` would copy the learner with TensorFlow and its threads into the worker.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        arguments = theirs, self._make, os.getpid()
        self._process = context.Process(target=_work, args=arguments, name=self._name, daemon=True)
        self._process.start()
        theirs.close()  # Or the end of the worker would not end the stream.
        self._title = f"environment worker {self._name!r} (pid {self._process.pid})"

    def _ready(self) -> tuple[gymnasium.spaces.Dict, gymnasium.spaces.Box]:
        if self._spaces is None:
            self._spaces = self._receive()
        return self._spaces

    def _send(self, method: str, argument: Any) -> None:
        self._ready()
        if self._stepping:
            raise RuntimeError(f"{self._title}: {method} was called before step_wait")
        if self._connection.closed:
            raise WorkerError(f"{self._title} is closed")
        # A worker that has died may still have left a message, which `_receive` finds.
        with suppress(OSError):
            self._connection.send((method, argument))

    def _receive(self) -> Any:
        if self._connection.closed:
            raise WorkerError(f"{self._title} is closed")
        if not wait([self._connection], self._timeout):
            self.close()
            raise WorkerError(f"{self._title} gave no answer within {self._timeout:g} s")
        try:
            failed, answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(1.0)
            code = self._process.exitcode
            self.close()
            raise WorkerError(f"{self._title} died: {_cause(code)}") from None
        if failed:
            self.close()
            raise WorkerError(f"{self._title} failed: {answer}")
        return answer


def _cause(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exit code {exitcode}"
    return f"signal {signal.Signals(-exitcode).name}"


def _work(connection: Connection, pickled_make: bytes, parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # They may reach the whole group; the learner decides.
    _die_with(parent)
    status = 0
    try:
        _serve(connection, pickle.loads(pickled_make))
    except RunError as error:
        status = 1
        with suppress(OSError):
            connection.send((True, str(error)))
    except Exception:
        status = 1
        with suppress(OSError):
            connection.send((True, f"\n{traceback.format_exc()}"))
    sys.stdout.flush()
    sys.stderr.flush()
    # OpenGL libraries have been seen to crash while the interpreter shuts down.
    os._exit(status)


def _die_with(parent: int) -> None:
    """Have the system end this process with the learner, even while an environment hangs."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # It was gone before.
        os._exit(1)


def _serve(connection: Connection, make: Callable[[], gymnasium.Env]) -> None:
    if "tensorflow" in sys.modules:
        raise ImportError(f"{getattr(make, 'func', make)} or its module imports TensorFlow")
    env = make()
    try:
        connection.send((False, (env.observation_space, env.action_space)))
        for method, argument in _requests(connection):
            if method == "reset":
                answer = _checked(env.reset(seed=argument)[0], env.observation_space)
            else:
                observation, reward, terminated, truncated, _ = env.step(argument)
                if not np.isfinite(reward):
                    raise ValueError(f"reward is {reward}")
                observation = _checked(observation, env.observation_space)
                answer = observation, float(reward), bool(terminated), bool(truncated)
            connection.send((False, answer))
    finally:
        env.close()


def _requests(connection: Connection) -> Iterator[tuple[str, Any]]:
    # The stream ends when the learner closes it, and when the learner is gone.
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield connection.recv()


def _checked(observation: Observation, space: gymnasium.spaces.Dict) -> Observation:
    if observation.keys() != space.keys():
        raise ValueError(f"observation has {sorted(observation)} instead of {sorted(space.keys())}")
    for key, box in space.items():
        value = np.asarray(observation[key])
        if (value.dtype, value.shape) != (box.dtype, box.shape):
            raise ValueError(
                f"observation {key!r} is {value.dtype} {value.shape} "
                f"instead of {box.dtype} {box.shape}"
            )
    return observation
