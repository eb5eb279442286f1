"""Signals, as they reach a process that computes outside Python."""

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Computes in C with the interpreter released, as TensorFlow does: Python's handlers must wait.
SCRIPT = """
import hashlib, signal, sys
from dreamer_bird.utils.signals import Stopped, stopping
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
with stopping(grace={grace}) as check:
    print("ready", flush=True)
    try:
        while True:
            hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
            check()
    except Stopped as stopped:
        print(stopped, flush=True)
        sys.exit(stopped.exit_status)
"""


@pytest.fixture
def start():
    """Starts the script; whatever becomes of the test, no process of it goes on."""
    started = []

    def begin(grace=8, rounds=500_000):
        line = [sys.executable, "-c", SCRIPT.format(grace=grace, rounds=rounds)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(line, cwd=ROOT, stdout=pipe, stderr=pipe, text=True))
        assert started[-1].stdout.readline() == "ready\n"
        return started[-1]

    yield begin
    for process in started:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_at_the_next_check(start, number):
    process = start()
    process.send_signal(number)
    out, error = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert out == f"stopped by {number.name}; the same command goes on from here\n"
    assert error == "stopping; Ctrl-C stops at once\n"


def test_a_second_interrupt_stops_at_once_a_second_termination_does_not(start):
    process = start()
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline()  # else both may arrive as one
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143 and "SIGTERM" in out

    process = start(rounds=200_000_000)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")


def test_a_process_that_cannot_reach_a_check_ends_after_the_grace(start):
    process = start(grace=0.5, rounds=200_000_000)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    out, error = process.communicate(timeout=10)
    assert 0.4 < time.monotonic() - begun < 5
    assert (process.returncode, out) == (143, "")
    assert error.splitlines()[-1] == (
        "ended where it was, since an operation took longer than 0.5 s; the same command goes on "
        "from the last checkpoint"
    )


def test_afterwards_signals_are_as_before():
    from dreamer_bird.utils.signals import stopping

    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    before = [signal.getsignal(number) for number in numbers]
    with stopping() as check:
        check()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_afterwards_who_was_woken_by_signals_is_woken_again():
    """An event loop of asyncio, say, in whose thread a run was started."""
    from dreamer_bird.utils.signals import stopping

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        handler = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            with stopping():
                pass
            signal.raise_signal(signal.SIGUSR1)
            ours.settimeout(5)
            assert ours.recv(1) == bytes([signal.SIGUSR1])
        finally:
            signal.signal(signal.SIGUSR1, handler)
            signal.set_wakeup_fd(-1)


def test_a_terminal_that_is_gone_changes_nothing(start):
    process = start(rounds=200_000_000)
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130


def test_an_interrupt_after_a_termination_stops_at_once(start):
    process = start(rounds=200_000_000)
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=5)
    assert (process.returncode, out) == (130, "")


def test_a_command_that_is_ended_leaves_no_folder(tmp_path):
    code = f"""
import tempfile, time
from dreamer_bird.utils.signals import unwinding
with unwinding(), tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
    print("ready", flush=True)
    time.sleep(60)
"""
    line = [sys.executable, "-c", code]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n" and len([*tmp_path.iterdir()]) == 1
        process.terminate()
        assert process.wait(20) == 143 and not [*tmp_path.iterdir()]


def test_a_process_that_ends_at_once_shows_the_cursor_again():
    ours, theirs = pty.openpty()
    line = [sys.executable, "-c", SCRIPT.format(grace=8, rounds=50_000_000)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # its end is an error
            while more := terminal.read(1000):
                said += more
                if said.endswith(b"ready\r\n"):
                    process.send_signal(signal.SIGTERM)
                if said.endswith(b"at once\r\n"):
                    process.send_signal(signal.SIGINT)
        assert (process.wait(20), said[-6:]) == (130, b"\x1b[?25h")
    finally:
        process.kill()


def test_a_signal_that_the_caller_handles_stops_nothing():
    from dreamer_bird.utils.signals import stopping

    came = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        with stopping() as check:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.2)
            check()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert came == [signal.SIGUSR1]


def test_in_another_thread_it_is_stopped_by_request_and_signals_stay_as_they_are():
    from dreamer_bird.utils.signals import Stopped, request_stop, stopping

    assert not request_stop(signal.SIGPIPE)
    before = signal.getsignal(signal.SIGINT)

    def work():
        with stopping() as check:
            assert signal.getsignal(signal.SIGINT) == before
            assert request_stop(signal.SIGPIPE)
            with pytest.raises(Stopped, match="SIGPIPE") as caught:
                while True:
                    check()
        return caught.value.exit_status

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result(timeout=10) == 141
