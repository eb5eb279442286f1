"""Sweeps on a real Ray, started as a user does, and all the processes that belong to them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from command_line import RUN

PATIENCE = 120  # seconds
TCP_LISTEN = "0A"


class Sweep:
    """A sweep in a session of its own, whose output is in a file."""

    def __init__(self, folder, *flags, **variables):
        self.folder, self._out = folder, folder / "sweep.out"
        with self._out.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(RUN), "sweep", *map(str, flags)],
                cwd=folder,
                env=os.environ | variables,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self):
        """What the sweep has printed so far."""
        return self._out.read_text()

    def finish(self):
        """Wait for the end; return the exit status."""
        return self.process.wait(timeout=2 * PATIENCE)

    def wait_for(self, *patterns):
        """Wait until files that match these patterns are there, and not empty."""
        deadline = time.monotonic() + PATIENCE
        while not all(any(_size(p) for p in self.folder.glob(pattern)) for pattern in patterns):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def family(self):
        """Return the ids of all its processes, its own included."""
        return descendants(self.process.pid)

    def run_process(self, name):
        """Return the id of the process that trains the run of this name."""
        lines = {pid: _read(pid, "cmdline").split("\0") for pid in self.family()}
        return next(
            pid
            for pid, words in lines.items()
            if "dreamer_bird.commands.sweep.node" in words and words[-2].endswith(name)
        )

    def signal(self, number, group=False):
        """Send a signal to the sweep, or to all in its terminal as an interrupt typed there."""
        (os.killpg if group else os.kill)(self.process.pid, number)


def descendants(pid):
    """Return the ids of a process and of all that it has started."""
    children = {}
    for path in Path("/proc").glob("[0-9]*"):
        if match := re.search(r"^PPid:\t(\d+)$", _read(path.name, "status"), re.MULTILINE):
            children.setdefault(int(match[1]), []).append(int(path.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def listening(pids):
    """Return the addresses, in hexadecimal as the system has them, on which processes listen."""
    table = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == TCP_LISTEN:
                table[f"socket:[{words[9]}]"] = words[1].partition(":")[0]
    links = [link for pid in pids for link in Path(f"/proc/{pid}/fd").glob("*")]
    return {table[target] for target in map(_target, links) if target in table}


def assert_gone(pids, seconds):
    """All of these processes end within so many seconds."""
    deadline, pids = time.monotonic() + seconds, list(pids)
    while left := alive(pids):
        assert time.monotonic() < deadline, [_read(pid, "cmdline") for pid in left]
        time.sleep(0.1)


def variables(pid):
    """Return the environment variables of a process."""
    return dict(word.split("=", 1) for word in _read(pid, "environ").split("\0") if "=" in word)


def kill_all(pids):
    """End what a test that failed has left."""
    for pid in alive(pids):
        os.kill(pid, signal.SIGKILL)


def alive(pids):
    """Return those of the processes that have not ended."""
    statuses = {pid: _read(pid, "status") for pid in pids}
    return [pid for pid, text in statuses.items() if text and "\nState:\tZ" not in text]


def _read(pid, name):
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _target(link):
    try:
        return os.readlink(link)
    except OSError:
        return ""
