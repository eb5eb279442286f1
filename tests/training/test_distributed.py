"""Two hosts train one run over loopback, through the real command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import here
from killing import metrics

from dreamer_bird.config import load
from dreamer_bird.errors import ConfigError, DeviceMemoryError, RunError
from dreamer_bird.training.distributed.hosts import Hosts, check_split, gather, read_hosts
from dreamer_bird.training.distributed.team import Team

ROOT = Path(__file__).parents[2]
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

    def start(logdir, steps, *flags, follower_flags=()):
        processes = _start(logdir, steps, flags, follower_flags)
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.wait()


def _start(logdir, steps, flags, follower_flags):
    cluster, processes = {"worker": free_addresses(2)}, []
    for index, folder in enumerate((logdir, logdir.with_name("not-the-chiefs"))):
        setting = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        line = [sys.executable, str(ROOT / "run.py"), *FLAGS, "--steps", str(steps)]
        env = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
        process = subprocess.Popen(
            [*line, "--logdir", str(folder), *flags, *(follower_flags if index else ())],
            env={**env, "TF_CONFIG": json.dumps(setting), "CUDA_VISIBLE_DEVICES": "-1"},
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


def test_two_hosts_train_as_one_host(tmp_path, start_hosts):
    hosts = start_hosts(tmp_path / "run", 800)
    assert [status for status, _ in ends(hosts)] == [0, 0]
    assert_trained_as_one_host(tmp_path / "run", 800)


@pytest.mark.long
def test_two_hosts_lost_and_started_again_train_as_one_host(tmp_path, start_hosts):
    logdir = tmp_path / "run"
    hosts = start_hosts(logdir, 1200)
    wait_for_a_step(logdir, 600)
    hosts[1].kill()
    (status, error), _ = ends(hosts)
    assert status == 1
    assert "run.py: lost host 1 (127.0.0.1:" in error
    assert error.splitlines()[-1].endswith(
        "of this run, which may say why itself; start all of them again, they go on from the last "
        "checkpoint"
    )
    hosts = start_hosts(logdir, 1200)
    assert [status for status, _ in ends(hosts)] == [0, 0]
    assert_trained_as_one_host(logdir, 1200)


def assert_trained_as_one_host(logdir, steps):
    assert not logdir.with_name("not-the-chiefs").exists()
    alone = logdir.with_name("alone")
    line = [sys.executable, str(ROOT / "run.py"), *FLAGS, "--logdir", str(alone)]
    subprocess.run([*line, "--steps", str(steps)], check=True, capture_output=True)
    ours, theirs = metrics(logdir), metrics(alone)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=0.01, abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_either_host_saves_and_stops_both(told, tmp_path, start_hosts):
    logdir = tmp_path / "run"
    hosts = start_hosts(logdir, 10**6)
    wait_for_a_step(logdir, 600)
    hosts[told].send_signal(signal.SIGTERM)
    assert [status for status, _ in ends(hosts)] == [143, 143]
    last = metrics(logdir)[-1]["step"]
    assert str(last) in max(path.name for path in (logdir / "checkpoints").iterdir())


@pytest.mark.long
def test_a_run_that_diverges_stops_both(tmp_path, start_hosts):
    hosts = start_hosts(tmp_path / "run", 10**6, "--model.lr", "1e30", "--train.max_skipped", "3")
    (status, error), (follower, _) = ends(hosts)
    assert (status, follower) == (1, 143)
    assert "training diverged" in error


THREE = ("a:1", "b:1", "c:1")


@pytest.mark.parametrize(
    ("task", "hosts"),
    [
        ({"type": "chief", "index": 0}, Hosts(THREE, 0)),
        ({"type": "worker", "index": 1}, Hosts(THREE, 2)),
        ({"type": "worker", "index": "0"}, Hosts(THREE, 1)),
    ],
)
def test_the_chief_comes_before_the_workers(task, hosts):
    setting = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": task}
    assert read_hosts({"TF_CONFIG": json.dumps(setting)}) == hosts


def test_without_tf_config_there_is_one_host():
    assert read_hosts({}) == Hosts()
    assert Hosts().count == 1 and Hosts().is_chief


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "{}", '{"cluster": {}, "task": {"type": "master", "index": 0}}'),
        '{"cluster": {}, "environment": "cloud", "task": {"cloud": "c", "index": 0}}',
        '{"cluster": null, "task": null}',
        *(
            f'{{"cluster": {{"{kind}": ["a"]}}, "task": {{"type": "{kind}", "index": "0"}}}}'
            for kind in ("worker", "chief", "master", "evaluator")
        ),
        '{"cluster": {"chief": ["a:1"], "worker": []}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["c:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"master": ["a:1"], "evaluator": ["c:1"]}, "task": {"type": "master"}}',
    ],
)
def test_one_host_of_an_operator_is_a_plain_run(text):
    assert read_hosts({"TF_CONFIG": text}) == Hosts()


WRONG = [
    "{",
    "[]",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
    '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "ps", "index": 0}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": ["worker"], "index": 0}}',
    '{"cluster": {"worker": ["a:1", "b:99999"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": "a:2222"}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": {"0": "a:1"}}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 1}}',
    '{"cluster": {"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "task": {"type": "ps", "index": 0}}',
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_tf_config_is_refused(text):
    with pytest.raises(ConfigError, match="TF_CONFIG: must be like"):
        read_hosts({"TF_CONFIG": text})


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_created(tmp_path):
    result = here("--devices", "3", "--logdir", tmp_path / "x")
    message = "run.py: --devices 3: must divide --replay.batch 50 evenly\n"
    assert (result.returncode, result.stderr) == (2, message)
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="--devices 2 on each of 3 hosts: must divide"):
        check_split(load({"devices": 2}), Hosts(THREE, 1))
    check_split(load({"devices": 5}), Hosts(THREE[:2], 1))


def test_updates_of_several_devices_or_hosts_are_not_compiled():
    with pytest.raises(ConfigError, match="--xla true: compiles updates of one device, not of"):
        load({"xla": True, "devices": 2})
    with pytest.raises(ConfigError, match="--xla true: compiles updates of one host, not of 2"):
        check_split(load({"xla": True}), Hosts(THREE[:2], 0))


def test_hosts_with_different_settings_are_refused(tmp_path, start_hosts):
    hosts = start_hosts(tmp_path / "run", 10**6, follower_flags=("--actor.lr", "0.5"))
    message = "run.py: the hosts have different settings: start all with the same command\n"
    assert ends(hosts) == [(2, message), (2, message)]
    assert not list(tmp_path.iterdir())


def test_hosts_meet_whoever_comes_first_and_strangers_do_not_count():
    addresses = tuple(free_addresses(3))
    with ThreadPoolExecutor() as pool:
        late = [pool.submit(gather, Hosts(addresses, number), "same") for number in (2, 1)]
        time.sleep(0.1)
        chief = pool.submit(gather, Hosts(addresses, 0), "same")
        stranger_of(addresses[0])
        assert [each.result(timeout=20) for each in (*late, chief)] == [None, None, None]


def stranger_of(address):
    host, _, port = address.partition(":")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET / HTTP/1.1\n")
            return
        time.sleep(0.01)


def test_an_address_in_use_is_named():
    address, other = free_addresses(2)
    host, _, port = address.partition(":")
    message = f"{address} of TF_CONFIG, this host's: Address already in use"
    with socket.create_server((host, int(port))), pytest.raises(RunError, match=message):
        gather(Hosts((address, other), 0), "")


def test_a_host_that_waits_for_another_can_be_stopped(tmp_path, start_hosts):
    chief, other = start_hosts(tmp_path / "run", 10**6)
    other.kill()
    assert "waiting for the others" in chief.stdout.readline()
    time.sleep(0.3)
    chief.terminate()
    assert chief.wait(timeout=10) in (143, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, True), (RunError, True), (KeyError, False), (DeviceMemoryError, False)],
)
def test_an_end_that_may_be_within_an_update_is_not_told(error, told):
    """The others are in that update: they would never hear it."""
    words = []
    team = SimpleNamespace(_hosts=Hosts(("a", "b")), _agree=lambda word, stop: words.append(word))
    Team.tell_the_end(team, error)
    assert bool(words) == told
