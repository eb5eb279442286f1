"""Standard streams that outlive who reads them: a terminal that is gone, a pipe that is closed."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from dreamer_bird.utils.signals import request_stop

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Outlet:
    """A stream that falls silent when nobody can read it any more, instead of raising."""

    def __init__(self, stream: TextIO, for_reader: bool = False):
        """Take the stream; with `for_reader` what prints to a pipe ends when its reader does."""
        self._stream, self._for_reader = stream, for_reader
        self.lost: OSError | None = None  # a full disk, which has not taken all that was printed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, and return how many characters."""
        with self._surviving():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what waits."""
        with self._surviving():
            self._stream.flush()

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _FULL:
                self.lost = error
            with suppress(OSError):  # of a stream that is no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            # What ignores SIGHUP, as nohup has it, is to go on when whoever started it has left.
            stays = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            ends = isinstance(error, BrokenPipeError) and self._for_reader and not stays
            if ends and not request_stop(signal.SIGPIPE):
                raise SystemExit(128 + signal.SIGPIPE) from None


@contextmanager
def surviving_streams() -> Iterator[None]:
    """Have standard output and error survive their readers; whatever was closed leads nowhere.

    A run whose output goes into a pipe is stopped, as by a signal, when its reader ends.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, _open_nowhere(number))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack letters of a path
            stream.reconfigure(errors="replace")
    with redirect_stdout(Outlet(sys.stdout, for_reader=True)), redirect_stderr(Outlet(sys.stderr)):
        try:
            yield
        finally:  # --help leaves by SystemExit
            sys.stdout.flush()


def _open_nowhere(number: int) -> TextIO:
    """Open what leads nowhere as a standard stream, before another file gets its number."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    if descriptor == number:
        os.set_inheritable(number, True)  # by the processes of environments, as the others are
    else:
        os.dup2(descriptor, number)
        os.close(descriptor)
    return open(number, "r" if number == 0 else "w", closefd=False)
