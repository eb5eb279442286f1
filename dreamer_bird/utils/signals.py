"""SIGTERM, SIGINT and SIGHUP: stop at the next safe point, save, and be gone within ten seconds."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import NoReturn

from dreamer_bird.errors import RunError

GRACE = 7.0  # seconds; what is not saved by then is done again from the last checkpoint
_STOP = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE}
_pipes: list[int] = []  # into which those who can be stopped want the number of a signal


class Stopped(RunError):
    """The run was told to stop."""

    def __init__(self, number: int):
        """Take the number of the signal; the exit status follows from it as shells report it."""
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; the same command goes on from here")
        self.exit_status = 128 + number


@contextmanager
def unwinding() -> Iterator[None]:
    """Leave by SystemExit at SIGTERM, so that no folder stays that was being written.

    A handler of the caller's own stays, and in another thread than the main one nothing changes.
    """
    own = threading.current_thread() is threading.main_thread()
    if not own or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def request_stop(number: int) -> bool:
    """Stop, as if a signal had come, what is within `stopping`; return whether anything is."""
    for pipe in _pipes[-1:]:
        os.write(pipe, bytes([number]))
    return bool(_pipes)


@contextmanager
def stopping(grace: float = GRACE) -> Iterator[Callable[[], None]]:
    """Yield a function, to be called at safe points, that raises Stopped once a signal has come.

    At a SIGINT after another signal, and if the context lasts `grace` seconds after a signal, the
    process ends where it is. A SIGHUP that is ignored, as by nohup, stays so. In any other thread
    than the main one, to which signals belong, only `request_stop` stops.
    """
    received: list[int] = []
    end = threading.Timer(grace, lambda: _end_unsaved(grace, 128 + received[0]))
    end.daemon = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def check() -> None:
        if received:
            raise Stopped(received[0])

    def watch() -> None:
        with open(reader, "rb", buffering=0) as stream:
            while byte := stream.read(1):
                if byte[0] not in _STOP:  # another one, for which the caller has a handler
                    continue
                if received and byte[0] == signal.SIGINT:
                    _exit(128 + byte[0])
                received.append(byte[0])
                if len(received) == 1:
                    end.start()
                    with suppress(OSError, ValueError):  # who started the run may be gone
                        print("stopping; Ctrl-C stops at once", file=sys.stderr)

    threading.Thread(target=watch, daemon=True).start()
    main = threading.current_thread() is threading.main_thread()
    _pipes.append(writer)
    try:
        with _signals_into(writer) if main else nullcontext():
            yield check
    finally:
        _pipes.remove(writer)
        end.cancel()
        os.close(writer)


def _end_unsaved(grace: float, status: int) -> None:
    with suppress(OSError, ValueError):
        told = f"ended where it was, since an operation took longer than {grace:g} s"
        print(f"{told}; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.stderr.flush()
    _exit(status)


def _exit(status: int) -> NoReturn:
    with suppress(OSError, ValueError):
        if sys.stdout.isatty():  # the progress line hides its cursor
            os.write(sys.stdout.fileno(), b"\x1b[?25h")
    os._exit(status)


@contextmanager
def _signals_into(pipe: int) -> Iterator[None]:
    """Have the signals that stop do nothing but write their number, a byte, into a pipe.

    Python runs its handlers between two operations of the main thread, and one operation of
    TensorFlow may last seconds: the system's handler writes at once.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
