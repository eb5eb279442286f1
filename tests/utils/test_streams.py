"""Output whose terminal is gone, whose reader has left, or that was closed from the start."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from command_line import RUN

from dreamer_bird.training import checkpoint

# A run that is quick to start, since it does not learn.
FLAGS = ["--configs", "debug", "--task", "gym_Pendulum-v1", "--obs", "state"]
FLAGS += ["--train.prefill", "9999", "--steps"]
# Prints until it is stopped, and writes in a file how far it has come.
SCRIPT = """
import pathlib, sys, time
from dreamer_bird.utils.signals import Stopped, stopping
from dreamer_bird.utils.streams import surviving_streams
with surviving_streams(), stopping() as check:
    try:
        for number in range(100_000):
            print(number, flush=True)
            pathlib.Path(sys.argv[1]).write_text(str(number))
            time.sleep(0.01)
            check()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_status)
"""
ONCE = "from dreamer_bird.utils.streams import *\nwith surviving_streams(): print('x' * 10**6)"


def start(*line, ignore=False, terminal=None, **streams):
    """Start Python, on a terminal of its own if one is given; `ignore` SIGHUP as nohup does."""

    def lead():
        if terminal is not None:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore else signal.SIG_DFL)

    if terminal is not None:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    env = os.environ | {"PYTHONPATH": str(RUN.parent), "TERM": "xterm"}
    return subprocess.Popen([sys.executable, *map(str, line)], preexec_fn=lead, env=env, **streams)


def wait_for_growth(path, process):
    """Wait until a file is there and changes."""
    before, deadline = None, time.monotonic() + 90
    while before is None or path.read_text() == before:
        assert time.monotonic() < deadline and process.poll() is None
        before = before or (path.read_text() if path.exists() else None)
        time.sleep(0.02)


@pytest.mark.parametrize(("ignore", "status"), [(False, 129), (True, 143)])
def test_a_lost_terminal_stops_what_does_not_ignore_it(tmp_path, ignore, status):
    path = tmp_path / "number"
    ours, theirs = pty.openpty()
    process = start("-c", SCRIPT, path, ignore=ignore, terminal=theirs)
    os.close(theirs)
    wait_for_growth(path, process)
    os.close(ours)
    if ignore:
        wait_for_growth(path, process)
        process.terminate()
    assert process.wait(20) == status


@pytest.mark.parametrize(("ignore", "status"), [(False, 141), (True, 143)])
def test_a_reader_that_leaves_stops_what_does_not_ignore_it(tmp_path, ignore, status):
    path, pipe = tmp_path / "number", subprocess.PIPE
    process = start("-c", SCRIPT, path, ignore=ignore, stdout=pipe, stderr=pipe)
    process.stdout.readline()
    process.stdout.close()
    if ignore:
        for _ in range(3):
            wait_for_growth(path, process)
        process.terminate()
    error = process.stderr.read().decode()
    assert process.wait(20) == status
    name = "SIGTERM" if ignore else "SIGPIPE"
    assert error.splitlines()[-1] == f"stopped by {name}; the same command goes on from here"
    assert "Traceback" not in error


def test_what_no_run_prints_ends_with_its_reader_and_without_a_word():
    process = start("-c", ONCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait(20)) == (b"", 141)


def test_help_whose_reader_has_left_says_nothing():
    line = start(RUN, "compare", "--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    line.stdout.close()
    assert (line.stderr.read(), line.wait(20)) == (b"", 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_what_a_command_printed_and_the_disk_has_not_is_an_error():
    with open("/dev/full", "w") as full:
        line = start(RUN, "compare", "baselines", "--json", stdout=full, stderr=subprocess.PIPE)
        told = line.stderr.read().decode().splitlines()
    assert (line.wait(20), told[-1]) == (1, "run.py: OSError: [Errno 28] No space left on device")


def saved_step(logdir):
    return int(checkpoint.newest_first(logdir / "checkpoints")[0].stem)


def test_a_run_on_a_lost_terminal_writes_its_logs_and_one_whose_reader_leaves_goes_on(tmp_path):
    logdir = tmp_path / "run"
    log = logdir / "metrics.jsonl"
    line = [RUN, *FLAGS, 10**6, "--logdir", logdir, "--train.save_every", 10**6]
    ours, theirs = pty.openpty()
    process = start(*line, ignore=True, terminal=theirs)
    os.close(theirs)
    wait_for_growth(log, process)
    os.close(ours)
    for _ in range(3):
        wait_for_growth(log, process)
    process.terminate()
    assert process.wait(30) == 143
    first = saved_step(logdir)
    assert first == json.loads(log.read_text().splitlines()[-1])["step"] > 0
    process = start(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert any("resumed at step" in text for text in process.stdout)
    process.stdout.close()
    assert (
        process.stderr.read()
        .splitlines()[-1]
        .endswith("run.py: stopped by SIGPIPE; the same command goes on from here")
    )
    assert process.wait(30) == 141
    assert saved_step(logdir) >= first


def test_closed_streams_leave_no_traceback(tmp_path):
    for closed, left in (("<&- >&-", "stderr"), ("2>&-", "stdout")):
        words = f'exec "$0" "$@" {closed}'
        line = ["bash", "-c", words, sys.executable, RUN, *FLAGS, 400]
        line += ["--logdir", tmp_path / left]
        done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0
        assert "Traceback" not in getattr(done, left)
        assert '"step": 400' in (tmp_path / left / "metrics.jsonl").read_text()
