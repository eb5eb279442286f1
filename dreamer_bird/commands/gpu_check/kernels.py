"""Where the time of updates goes, from what TensorFlow's profiler wrote."""

import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dreamer_bird.commands.updates import time_updates
from dreamer_bird.config import Config
from dreamer_bird.errors import RunError

if TYPE_CHECKING:
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

STEPS = 5  # updates profiled
TOP = 5  # kernels named
_COPIES = ("memcpy", "memset")


def profile_updates(config: Config) -> list[str]:
    """Profile some updates, the first ones left out; return what `summary` says of them."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    updates = time_updates(config)
    list(islice(updates, 2))
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        start = time.perf_counter()
        list(islice(updates, STEPS))
        wall = time.perf_counter() - start
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        return summary(XSpace.FromString(file.read_bytes()), STEPS, 1000 * wall)


def summary(space: "XSpace", steps: int, wall_ms: float) -> list[str]:
    """Say in five lines what the first GPU did in so many updates, of so many ms together.

    Raises RunError where the profile has no GPU in it.
    """
    planes = [plane for plane in space.planes if plane.name.startswith("/device:GPU")]
    if not planes:
        raise RunError(
            "the profile has no GPU in it: the driver may let only root profile "
            "(NVreg_RestrictProfilingToAdminUsers=0 lets all)"
        )
    plane = planes[0]
    names = {key: each.name for key, each in plane.event_metadata.items()}
    spans, kernels, copies = [], Counter(), Counter()
    # The other lines of a plane say again, by operation or module, what the streams did.
    for line in (line for line in plane.lines if line.name.startswith("Stream")):
        for event in line.events:
            name, ms = names[event.metadata_id], event.duration_ps / 1e9
            begin = line.timestamp_ns / 1e6 + event.offset_ps / 1e9
            spans.append((begin, begin + ms))
            times = copies if name.lower().startswith(_COPIES) else kernels
            times[name] += ms
    launched = len(spans)
    busy, total = _covered(spans), max(sum(kernels.values()), 1e-9)
    top = (f"{name[:40]} {ms / total:.0%}" for name, ms in kernels.most_common(TOP))
    host = _host_times(space)
    return [
        f"an update takes {wall_ms / steps:.2f} ms, of which the GPU computes {busy / wall_ms:.0%}",
        f"{launched / steps:,.0f} kernels and copies an update, "
        f"{1000 * busy / max(launched, 1):.0f} us each",
        f"most time: {', '.join(top)}",
        f"copies and fills: {sum(copies.values()) / steps:.3f} ms an update",
        f"the host launches for {host['launch'] / steps:.2f} ms an update, and waits in "
        f"synchronisation for {host['wait'] / steps:.2f} ms",
    ]


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts, since streams overlap."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered


def _host_times(space: "XSpace") -> Counter:
    """Return the ms of the CUDA calls that the host made, all threads together."""
    times = Counter()
    for plane in space.planes:
        if plane.name.startswith("/host:"):
            names = {key: each.name for key, each in plane.event_metadata.items()}
            for event in (event for line in plane.lines for event in line.events):
                name = names[event.metadata_id].lower()
                kind = "launch" * ("launch" in name) or "wait" * ("synchronize" in name)
                if name.startswith("cu") and kind:
                    times[kind] += event.duration_ps / 1e9
    return times
