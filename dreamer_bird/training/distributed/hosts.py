"""The hosts of a run, as the environment variable TF_CONFIG has them, and how they gather."""

import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from dreamer_bird.config import Config
from dreamer_bird.errors import ConfigError, RunError

_ADDRESS = re.compile(r"\S+:\d+")


class Hosts(NamedTuple):
    """The addresses of the hosts that share each update, none of one host alone, and which this is.

    The first one is the chief.
    """

    addresses: tuple[str, ...] = ()
    number: int = 0

    @property
    def count(self) -> int:
        """Return how many hosts there are."""
        return max(1, len(self.addresses))

    @property
    def is_chief(self) -> bool:
        """Return whether this host plays, logs and saves; the others only compute."""
        return self.number == 0


def read_hosts(environment: Mapping[str, str]) -> Hosts:
    """Return the hosts that TF_CONFIG names, or this one alone; ConfigError if it is malformed."""
    try:
        settings = json.loads(environment.get("TF_CONFIG", "").strip() or "{}")
        cluster, task = settings.get("cluster") or {}, settings.get("task") or {}
        if _is_alone(cluster, task):
            return Hosts()
        return _hosts(cluster, task["type"], int(task["index"]))
    except (ValueError, TypeError, LookupError, AttributeError):
        raise ConfigError(
            'TF_CONFIG: must be like {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}, with at most one chief, which comes before '
            "the workers, and nothing else"
        ) from None


def _is_alone(cluster: dict[str, list[str]], task: dict[str, object]) -> bool:
    """Return whether this is the only host, or the only one that trains, under any name.

    Operators that start training set TF_CONFIG for one host too.
    """
    counts = {kind: len(hosts) for kind, hosts in cluster.items() if isinstance(hosts, list)}
    kind, index = task.get("type"), int(task.get("index", 0))
    trainers = sum(counts.get(name, 0) for name in ("chief", "master", "worker"))
    alone = sum(counts.values()) <= 1 or (trainers == 1 and kind not in ("ps", "evaluator"))
    return alone and counts.keys() == cluster.keys() and 0 <= index < counts.get(kind, index + 1)


def _hosts(cluster: dict[str, list[str]], kind: str, index: int) -> Hosts:
    """Return the hosts of a cluster; ValueError where it or this host's place in it is wrong."""
    chiefs, workers = cluster.get("chief", []), cluster.get("worker", [])
    addresses = (*chiefs, *workers)
    valid = isinstance(chiefs, list) and isinstance(workers, list) and len(chiefs) <= 1
    valid = valid and all(_ADDRESS.fullmatch(each) for each in addresses)
    valid = valid and all(int(each.rpartition(":")[2]) < 2**16 for each in addresses)
    unique = len(set(addresses)) == len(addresses) and cluster.keys() <= {"chief", "worker"}
    if not (valid and unique and 0 <= index < len(cluster[kind])):
        raise ValueError
    return Hosts(addresses, index + len(chiefs) * (kind == "worker"))


def check_split(config: Config, hosts: Hosts) -> None:
    """Refuse, with ConfigError, what one host alone can do, and a batch that cannot be divided."""
    if config.xla == "true" and hosts.count > 1:
        raise ConfigError(f"--xla true: compiles updates of one host, not of {hosts.count}")
    if config.replay.batch % (config.devices * hosts.count):
        raise ConfigError(
            f"--devices {config.devices} on each of {hosts.count} hosts: must divide "
            f"--replay.batch {config.replay.batch} evenly"
        )


def gather(hosts: Hosts, settings: str) -> None:
    """Wait until all hosts are there, all with the same `settings`.

    TensorFlow would wait too, but can neither be interrupted then nor tell settings apart. Raises
    ConfigError if they differ, RunError if this host's address cannot be used.
    """
    try:
        server = _listen(hosts.addresses[hosts.number])
    except OSError as error:
        own = hosts.addresses[hosts.number]
        raise RunError(f"{own} of TF_CONFIG, this host's: {error.strerror or error}") from None
    with server:  # until all are there: who comes second to an address has made a mistake
        same = (
            _meet_all(server, hosts, settings) if hosts.is_chief else _meet_chief(hosts, settings)
        )
    if not same:
        raise ConfigError("the hosts have different settings: start all with the same command")


def _listen(address: str) -> socket.socket:
    """Listen at a host's own address, as TensorFlow will."""
    host, _, port = address.rpartition(":")
    inside = host == "localhost" or host.startswith("127.")
    return socket.create_server((host if inside else "", int(port)))


def _meet_all(server: socket.socket, hosts: Hosts, settings: str) -> bool:
    """Wait for all others to call, and tell them whether all have the same settings."""
    calls: dict[str, tuple[socket.socket, bool]] = {}
    while len(calls) < hosts.count - 1:
        connection, _ = server.accept()
        connection.settimeout(10)
        with suppress(OSError):
            number, _, theirs = _receive(connection).partition(" ")
            if number.isdecimal() and 0 < int(number) < hosts.count:  # else a stranger's
                calls[number] = connection, theirs == settings
    same = all(equal for _, equal in calls.values())
    for connection, _ in calls.values():
        with connection, suppress(OSError):  # a host that is gone will be missed soon
            connection.sendall(b"same\n" if same else b"different\n")
    return same


def _meet_chief(hosts: Hosts, settings: str) -> bool:
    """Call the chief until it answers, when all others have called."""
    host, _, port = hosts.addresses[0].rpartition(":")
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=10) as chief:
            chief.settimeout(None)
            chief.sendall(f"{hosts.number} {settings}\n".encode())
            if answer := _receive(chief):
                return answer == "same"
        time.sleep(1)


def _receive(connection: socket.socket) -> str:
    """Return a line, "" if the connection ends before it does."""
    line = connection.makefile(encoding="utf-8", errors="replace").readline()
    return line.removesuffix("\n") if line.endswith("\n") else ""
