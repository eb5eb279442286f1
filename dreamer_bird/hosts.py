"""The hosts of a run, as the environment variable TF_CONFIG has them."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from dreamer_bird.config import Config
from dreamer_bird.errors import ConfigError


class Hosts(NamedTuple):
    """How many hosts share each update, and which of them this is; the first one is the chief."""

    count: int = 1
    number: int = 0

    @property
    def is_chief(self) -> bool:
        """Return whether this host plays, logs and saves; the others only compute."""
        return self.number == 0


def read_hosts(environment: Mapping[str, str]) -> Hosts:
    """Return the hosts that TF_CONFIG names, or this one alone; ConfigError if it is malformed."""
    text = environment.get("TF_CONFIG", "")
    if not text:
        return Hosts()
    try:
        settings = json.loads(text)
        cluster, task = settings["cluster"], settings["task"]
        kind, index = task["type"], int(task["index"])
        addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
        offset = len(cluster.get("chief", [])) if kind == "worker" else 0
        known = kind in ("chief", "worker") and 0 <= index < len(cluster[kind])
    except (ValueError, TypeError, LookupError, AttributeError):
        known = False
    if not known:
        raise ConfigError(
            'TF_CONFIG: must be like {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}, with chief and worker only'
        )
    return Hosts(len(addresses), offset + index)


def check_split(config: Config, hosts: Hosts) -> None:
    """Refuse, with ConfigError, a batch that cannot be divided among all devices of all hosts."""
    replicas, batch = config.devices * hosts.count, config.replay.batch
    if batch % replicas:
        where = f" on each of {hosts.count} hosts" * (hosts.count > 1)
        raise ConfigError(
            f"--devices {config.devices}{where}: must divide --replay.batch {batch} evenly"
        )
