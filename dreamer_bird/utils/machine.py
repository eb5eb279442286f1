"""What this machine grants a run: cores, memory and GPUs, less what a container may not use."""

import math
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dreamer_bird.errors import RunError

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

# Names of limit, usage and the cache that can be given up, in both versions of control groups.
_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Gpu(NamedTuple):
    """An NVIDIA GPU, in the driver's own words: `memory` and `free` have their units."""

    name: str
    driver: str
    memory: str
    free: str


def gpus() -> list[Gpu]:
    """Return the GPUs that NVIDIA's driver shows, none where there is no driver.

    Raises RunError, in the driver's words, where it does not work.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = "--query-gpu=name,driver_version,memory.total,memory.free"
    line = [program, query, "--format=csv,noheader"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        raise RunError("nvidia-smi gives no answer") from None
    lines = done.stdout.splitlines()
    rows = [[word.strip() for word in line.split(",")] for line in lines]
    found = [Gpu(*row) for row in rows if len(row) == len(Gpu._fields)]
    if "No devices were found" in done.stdout:
        return []
    if done.returncode and not found:  # 14 comes with the GPUs, and a warning below them
        raise RunError(" ".join([*lines, *done.stderr.splitlines()][:1]) or "nvidia-smi fails")
    return found


def cores() -> tuple[int, float]:
    """Return on how many cores this process may run, and how much of their time it may take."""
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    return usable, min([usable, *map(_quota, _groups("cpu"))])


def free_memory() -> tuple[float, bool]:
    """Return the bytes that can still be taken, and whether a control group sets that limit.

    Without Linux they are unknown, so infinite.
    """
    lines = (line.split() for line in _read(PROC / "meminfo").splitlines())
    table = {words[0]: words[1] for words in lines if len(words) > 1}
    machine = 1024 * int(table["MemAvailable:"]) if "MemAvailable:" in table else math.inf
    group = min(map(_headroom, _groups("memory")), default=math.inf)
    return min(machine, group), group < machine


def memory_taken() -> float:
    """Return the most bytes that this process has taken, without the files that it maps.

    Those are in memory while there is room: a run within a limit of 0.70 GB ended well, by this
    count at 0.67 GB and with files at twice that, and within 0.60 GB it was killed.
    """
    lines = (line.split() for line in _read(PROC / "self/status").splitlines())
    table = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
    if "RssFile:" not in table:
        return float(peak_rss(resource.RUSAGE_SELF))
    return 1024.0 * (table["VmHWM:"] - table["RssFile:"])


def peak_rss(whose: int) -> int:
    """Return the most bytes that this process, or a child, had in memory: `whose` as `resource`."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(whose).ru_maxrss


def _groups(controller: str) -> list[Path]:
    """Return the control groups of this process that count for a controller, up to the root."""
    groups = []
    for line in _read(PROC / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            base = CGROUPS
        elif controller in controllers.split(","):
            base = CGROUPS / controllers
        else:
            continue
        # Within a container the path may be the host's: what is there of it counts.
        own = Path(path.lstrip("/"))
        groups += [base / group for group in (own, *own.parents)]
    return groups


def _headroom(group: Path) -> float:
    for limit, usage, cache in _MEMORY:
        text = _read(group / limit)
        if text.isdigit():  # not "max"
            used = int(_read(group / usage) or 0)
            stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            return int(text) - used + int(stat.get(cache, 0))
    return math.inf


def _quota(group: Path) -> float:
    text = _read(group / "cpu.max")
    if not text:  # version 1
        text = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
