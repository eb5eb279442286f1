"""Two hosts train one run over loopback, through the real command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killing import metrics

from dreamer_bird.config import load
from dreamer_bird.errors import ConfigError
from dreamer_bird.hosts import Hosts, check_split, read_hosts

ROOT = Path(__file__).parents[1]
FLAGS = ("--configs", "debug", "--task", "dmc_pendulum_swingup", "--obs", "state")


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return [f"127.0.0.1:{port}" for port in ports]


@pytest.fixture
def start_hosts():
    """Start the chief and another host, which must not touch its logdir; none is left behind."""
    started = []

    def start(logdir, steps):
        processes = _start(logdir, steps)
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.wait()


def _start(logdir, steps):
    cluster, processes = {"worker": free_addresses(2)}, []
    for index, folder in enumerate((logdir, logdir.with_name("not-the-chiefs"))):
        setting = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        line = [sys.executable, str(ROOT / "run.py"), *FLAGS, "--steps", str(steps)]
        process = subprocess.Popen(
            [*line, "--logdir", str(folder)],
            env={**os.environ, "TF_CONFIG": json.dumps(setting), "CUDA_VISIBLE_DEVICES": "-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    return processes


def ends(processes):
    """Return exit status and what went to stderr, of each."""
    errors = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


def wait_for_a_step(logdir, step):
    deadline = time.monotonic() + 200
    log = logdir / "metrics.jsonl"
    while not (log.exists() and any(line["step"] >= step for line in metrics(logdir))):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_two_hosts_stopped_lost_and_started_again_train_as_one_host(tmp_path, start_hosts):
    logdir, steps = tmp_path / "run", "2000"
    hosts = start_hosts(logdir, steps)
    wait_for_a_step(logdir, 600)
    hosts[1].send_signal(signal.SIGTERM)
    assert [status for status, _ in ends(hosts)] == [143, 143]
    last = metrics(logdir)[-1]["step"]
    assert str(last) in max(path.name for path in (logdir / "checkpoints").iterdir())

    hosts = start_hosts(logdir, steps)
    wait_for_a_step(logdir, last + 200)
    hosts[1].kill()
    (status, error), _ = ends(hosts)
    assert status == 1
    assert error.splitlines()[-1].endswith(
        "lost host 1 of this run; start all of them again, they go on from the last checkpoint"
    )
    hosts = start_hosts(logdir, steps)
    assert [status for status, _ in ends(hosts)] == [0, 0]
    assert not (tmp_path / "not-the-chiefs").exists()

    alone = tmp_path / "alone"
    line = [sys.executable, str(ROOT / "run.py"), *FLAGS, "--logdir", str(alone)]
    subprocess.run([*line, "--steps", steps], check=True, capture_output=True)
    ours, theirs = metrics(logdir), metrics(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=0.01, abs=0.01)


@pytest.mark.parametrize(
    ("task", "hosts"),
    [
        ({"type": "chief", "index": 0}, Hosts(3, 0)),
        ({"type": "worker", "index": 1}, Hosts(3, 2)),
        ({"type": "worker", "index": "0"}, Hosts(3, 1)),
    ],
)
def test_the_chief_comes_before_the_workers(task, hosts):
    setting = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": task}
    assert read_hosts({"TF_CONFIG": json.dumps(setting)}) == hosts


def test_without_tf_config_there_is_one_host():
    assert read_hosts({}) == read_hosts({"TF_CONFIG": ""}) == Hosts(1, 0)


WRONG = [
    "{",
    "[]",
    "{}",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
    '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}',
    '{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}',
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_tf_config_is_refused(text):
    with pytest.raises(ConfigError, match="TF_CONFIG: must be like"):
        read_hosts({"TF_CONFIG": text})


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_created(tmp_path):
    line = [sys.executable, str(ROOT / "run.py"), "--devices", "3", "--logdir", str(tmp_path / "x")]
    result = subprocess.run(line, capture_output=True, text=True)
    message = "run.py: --devices 3: must divide --replay.batch 50 evenly\n"
    assert (result.returncode, result.stderr) == (2, message)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="--devices 2 on each of 3 hosts: must divide"):
        check_split(load({"devices": 2}), Hosts(3, 1))
    check_split(load({"devices": 5}), Hosts(2, 1))
