"""What runs in an environment's process: it answers the requests of an `EnvWorker`."""

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np

from dreamer_bird.envs.checks import flaw, named, reward_flaw
from dreamer_bird.envs.spaces import ENV_STEPS, Facts
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.processes import die_with
from dreamer_bird.utils.streams import Outlet


def serve(connection: Connection, pickled_make: bytes, parent: int) -> None:
    """Make an environment and answer requests for it until the stream ends; then leave.

    Answers are (None, result), and the last one (kind of error, text) if something fails: the
    environment's own ConfigError or RunError, or `Exception` with a traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They may reach the whole group; the learner decides.
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    sys.unraisablehook = lambda _: None  # destructors of what could not be made, told already
    with suppress(OSError):  # an environment may print, and what we print may be JSON
        os.dup2(2, 1)
    sys.stdout, sys.stderr = Outlet(sys.stdout), Outlet(sys.stderr)
    status = 0
    try:
        _forbid_tensorflow()
        _answer_requests(connection, pickle.loads(pickled_make))
    except (Exception, SystemExit) as error:
        status = 1
        with suppress(OSError):
            connection.send(_problem(error))
    sys.stdout.flush()
    sys.stderr.flush()
    # OpenGL libraries have been seen to crash while the interpreter shuts down.
    os._exit(status)


def _forbid_tensorflow() -> None:
    """Let imports of TensorFlow fail, since software OpenGL crashes the process beside it.

    Raises ConfigError if the script that started this process, which Python imports here before all
    else, has imported it already.
    """
    if "tensorflow" in sys.modules:
        script = getattr(sys.modules.get("__mp_main__"), "__file__", "the script")
        raise ConfigError(
            f"{script}: imports TensorFlow at its top level, and environments, which crash beside "
            "it, live in processes that import the script again: import it in a function, or "
            "below `if __name__ == '__main__':`"
        )
    sys.modules["tensorflow"] = None  # as if it were not installed


def _problem(error: BaseException) -> tuple[type[Exception], str]:
    """Return the last answer: the kind of an error and its text."""
    if isinstance(error, ImportError | ConfigError) and (place := _import_of_tensorflow(error)):
        what = "imports TensorFlow, beside which software OpenGL crashes"
        return ConfigError, f"{place.filename}, line {place.lineno}: {what}"
    if isinstance(error, RunError):
        return ConfigError if isinstance(error, ConfigError) else RunError, str(error)
    return Exception, f"\n{traceback.format_exc()}"


def _import_of_tensorflow(error: BaseException | None) -> traceback.FrameSummary | None:
    """Return the line whose import of TensorFlow an error comes of, None if it comes of another."""
    while error and not (
        isinstance(error, ImportError) and f"{error.name}.".startswith("tensorflow.")
    ):
        error = error.__cause__ or error.__context__
    return traceback.extract_tb(error.__traceback__)[-1] if error else None


def _answer_requests(connection: Connection, make: Callable[[], gymnasium.Env]) -> None:
    env = make()
    try:
        told = getattr(env, "time_limit", None), tuple(getattr(env, "notes", ()))
        connection.send((None, Facts(env.observation_space, env.action_space, *told)))
        for method, argument in _requests(connection):
            connection.send((None, _answer(env, method, argument)))
    finally:
        # One that fails to close may have failed before, and that is what is to be told.
        with suppress(Exception, SystemExit):
            env.close()


def _answer(env: gymnasium.Env, method: str, argument: Any) -> Any:
    if method == "render":
        return _rendered(env)
    if method == "reset":
        observation, _ = env.reset(seed=argument)
        _check(env, observation)
        return observation
    observation, reward, terminated, truncated, info = env.step(argument)
    _check(env, observation, reward)
    return observation, float(reward), bool(terminated), bool(truncated), info.get(ENV_STEPS, 1)


def _check(env: gymnasium.Env, observation: Arrays, reward: float = 0.0) -> None:
    if problem := flaw(env.observation_space, observation) or reward_flaw(reward):
        raise ValueError(problem)


def _rendered(env: gymnasium.Env) -> np.ndarray | str:
    """Return an image, or why there is none: who asked may do without."""
    try:
        return env.render()
    except RunError as error:
        return str(error)
    except Exception as error:
        return f"render() raises {named(error)}"


def _requests(connection: Connection) -> Iterator[tuple[str, Any]]:
    # The stream ends when the learner closes it, and when the learner is gone.
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield connection.recv()
