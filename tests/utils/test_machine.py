"""What a machine grants, read from faked files and a faked driver."""

import math

import pytest

from dreamer_bird.errors import RunError
from dreamer_bird.utils import machine

GIB = 2**30


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """Put a program of that name first on the path, or none."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(script):
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return write


def test_what_the_driver_shows(nvidia_smi):
    assert machine.gpus() == []
    nvidia_smi("echo 'NVIDIA GeForce RTX 2080 Ti, 535.54.03, 11264 MiB, 10948 MiB'")
    assert machine.gpus() == [
        machine.Gpu("NVIDIA GeForce RTX 2080 Ti", "535.54.03", "11264 MiB", "10948 MiB")
    ]
    part = "NVIDIA A100-SXM4-40GB, 535.54.03, [Insufficient Permissions], [N/A]"
    nvidia_smi(f"echo '{part}'; echo 'WARNING: infoROM is corrupted at gpu 0'; exit 14")
    assert machine.gpus() == [machine.Gpu(*part.split(", "))]
    nvidia_smi("echo No devices were found; exit 6")
    assert machine.gpus() == []
    nvidia_smi("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    with pytest.raises(RunError, match="version mismatch"):
        machine.gpus()


@pytest.fixture
def system(monkeypatch, tmp_path):
    """Give the machine module a /proc and a /sys/fs/cgroup of a few files."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)))

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_linux_or_limits(system):
    assert machine.free_memory() == (math.inf, False)
    assert machine.cores() == (8, 8)
    system({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4096 kB\n"})
    assert machine.free_memory() == (2**22, False)


def test_limits_of_control_groups_version_2_of_this_one_and_those_above(system):
    system(
        {
            "proc/meminfo": f"MemAvailable: {2**25} kB",
            "proc/self/cgroup": "0::/jobs/one\n",
            "cgroup/jobs/memory.max": str(6 * GIB),
            "cgroup/jobs/memory.current": str(3 * GIB),
            "cgroup/jobs/memory.stat": f"anon 1\ninactive_file {GIB}\n",
            "cgroup/jobs/one/memory.max": "max",
            "cgroup/jobs/cpu.max": "max 100000",
            "cgroup/jobs/one/cpu.max": "250000 100000",
        }
    )
    assert machine.free_memory() == (4 * GIB, True)
    assert machine.cores() == (8, 2.5)


def test_limits_of_control_groups_version_1_of_which_a_container_sees_its_own_as_root(system):
    system(
        {
            "proc/meminfo": f"MemAvailable: {2**25} kB",
            "proc/self/cgroup": "4:memory:/docker/ab\n1:cpu,cpuacct:/docker/ab\n",
            "cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "cgroup/memory/memory.usage_in_bytes": str(GIB),
            "cgroup/memory/memory.stat": "total_inactive_file 0",
            "cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        }
    )
    assert machine.free_memory() == (GIB, True)
    assert machine.cores() == (8, 0.5)


def test_memory_taken_is_without_the_files_mapped(system):
    assert machine.memory_taken() > 2**20
    system({"proc/self/status": "Name:\tpython\nVmHWM:\t900 kB\nVmRSS: 800 kB\nRssFile: 300 kB\n"})
    assert machine.memory_taken() == 600 * 1024
