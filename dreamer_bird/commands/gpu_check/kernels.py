"""Where the time of updates goes, from what TensorFlow's profiler wrote."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dreamer_bird.errors import RunError

if TYPE_CHECKING:
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

STEPS = 5  # updates profiled
TOP = 5  # kernels named
_COPIES = ("memcpy", "memset")


def profile_updates(updates: Iterator[float]) -> list[str]:
    """Profile some of `time_updates`, after the first; return what `summary` says of them."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        wall = sum(islice(updates, STEPS))
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
    spans, kernels, copies = [], Counter(), []
    # The other lines of a plane say again, by operation or module, what the streams did.
    for line in (line for line in plane.lines if line.name.startswith("Stream")):
        for event in line.events:
            name, ms = names[event.metadata_id], event.duration_ps / 1e9
            begin = line.timestamp_ns / 1e6 + event.offset_ps / 1e9
            spans.append((begin, begin + ms))
            if name.lower().startswith(_COPIES):
                copies.append(ms)
            else:
                kernels[name] += ms
    busy, total = _covered(spans), max(sum(kernels.values()), 1e-9)
    launched = max(len(spans) - len(copies), 1)
    top = (f"{name[:40]} {ms / total:.0%}" for name, ms in kernels.most_common(TOP))
    return [
        f"an update computes for {busy / steps:.2f} ms on the GPU",
        f"in {launched / steps:,.0f} kernels, {1000 * total / launched:.0f} us each",
        f"and {len(copies) / steps:,.0f} copies and fills, {sum(copies) / steps:.2f} ms",
        f"most time: {', '.join(top)}",
        f"the GPU waited {1 - busy / wall_ms:.0%} of the time, while profiling slowed the host",
    ]


def _covered(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of the spans lasts, since streams overlap."""
    covered, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered
