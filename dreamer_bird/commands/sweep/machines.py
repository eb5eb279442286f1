"""What there is to run on: this machine or a Ray cluster, and the share of it that a run gets."""

import math
import os
import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from dreamer_bird.errors import RunError
from dreamer_bird.utils import machine
from dreamer_bird.utils.tensorflow import quietly

# Ray reads these when it is imported and when its processes start.
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: listen on 127.0.0.1 alone
    "RAY_AUTH_MODE": "token",  # or other users of this machine could have it run what they like
    "RAY_memory_monitor_refresh_ms": "0",  # or Ray would kill runs where memory is nearly full
    "RAY_kill_child_processes_on_worker_exit": "0",  # they shall save first
}
_OBJECT_STORE = 80 * 2**20  # bytes; Ray asks for 75 MiB at least, and nothing large is in it


class Machine(NamedTuple):
    """A machine's cores and GPUs."""

    cpus: int
    gpus: int


class Share(NamedTuple):
    """The cores and GPUs of one run."""

    cpus: int
    gpus: float

    def __str__(self) -> str:
        words = f"{self.cpus} core{'s' * (self.cpus != 1)}"
        return words + (f" and {self.gpus:g} GPU{'s' * (self.gpus > 1)}" if self.gpus else "")


def this_machine() -> Machine:
    """Return what this process may use of the machine that it runs on."""
    gpus: list[object] = []
    try:
        gpus = machine.gpus()
    except RunError as error:
        warnings.warn(f"no GPU of this machine is used: {error}", stacklevel=2)
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = gpus[: len([word for word in visible.split(",") if word not in ("", "-1")])]
    return Machine(max(1, int(machine.cores()[1])), len(gpus))


def share_of(
    machines: Sequence[Machine], runs: int, devices: int, cpus: int | None, gpus: float | None
) -> Share:
    """Return what each of `runs` gets: what is asked for, else a GPU for each of its devices, where
    there are GPUs, and an equal part of the cores.

    Where not all runs fit at once, those that do share the cores.
    """
    if gpus is None:
        gpus = float(devices * any(each.gpus for each in machines))
    able = [each for each in machines if each.gpus >= gpus]
    if cpus is None and able:
        spread = max(1, math.ceil(runs / len(able)))
        beside = (min(spread, _on_gpus(each, gpus)) if gpus else spread for each in able)
        cpus = min(max(1, each.cpus // many) for each, many in zip(able, beside, strict=True))
    return Share(cpus or 1, gpus)


def at_once(machines: Sequence[Machine], share: Share) -> int:
    """Return how many runs with this share go on side by side."""
    by_cpu = (each.cpus // share.cpus for each in machines)
    if not share.gpus:
        return sum(by_cpu)
    by_gpu = (_on_gpus(each, share.gpus) for each in machines)
    return sum(map(min, zip(by_cpu, by_gpu, strict=True)))


def _on_gpus(each: Machine, gpus: float) -> int:
    """Return how many runs its GPUs hold; Ray takes a part of one from a single GPU."""
    return int(each.gpus / gpus) if gpus > 1 else each.gpus * int(1 / gpus)


@contextmanager
def connected(address: str | None, this: Machine) -> Iterator[ModuleType]:
    """Start Ray on this machine, or connect to the cluster at an address; yield the module.

    Raises RunError where Ray is not installed, does not start, or does not answer.
    """
    os.environ.update(_ALWAYS if address else _ALWAYS | _LOCAL)
    try:
        import ray
    except ImportError:
        raise RunError("sweep needs Ray: run `pip install '.[sweep]'`") from None
    # In /tmp, since sockets are in it, whose paths may have little more than 100 characters.
    with tempfile.TemporaryDirectory(
        prefix="sweep-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        try:
            _connect(ray, address, this, folder)
            yield ray
        finally:
            ray.shutdown()


def machines_of(ray: ModuleType) -> list[Machine]:
    """Return the machines of the cluster that a process is connected to."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(has["CPU"]), int(has.get("GPU", 0))) for has in resources if "CPU" in has]


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or what kind it is."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _connect(ray: ModuleType, address: str | None, this: Machine, folder: str) -> None:
    if address:
        options = {"address": address}
    else:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # or it would go into the home
        options = {"address": "local", "num_cpus": this.cpus, "num_gpus": this.gpus}
        options |= {"object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        options["_temp_dir"] = folder
    try:
        if address not in (None, "auto"):  # or Ray would try for minutes where nothing answers
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        with quietly():  # of each of many attempts to connect there is a line
            ray.init(log_to_driver=False, logging_level="error", **options)
    except Exception as error:  # no room, a wrong port, another version of Ray: of many kinds
        if not address:
            raise RunError(f"Ray cannot start here: {first_line(error)}") from None
        reason = (getattr(error, "strerror", None) or first_line(error)).rstrip(".")
        wary = address != "auto" and "Ray" in reason
        hint = "; if the cluster wants a token: RAY_AUTH_MODE=token" * wary
        raise RunError(f"--address {address}: {reason}{hint}") from None
