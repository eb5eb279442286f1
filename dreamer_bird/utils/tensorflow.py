"""How TensorFlow is loaded."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from dreamer_bird.utils import machine

# Floating-point operations of an update, above the small presets' and below Dreamer's.
SMALL_UPDATE = 100e9

# XLA's flags. On a GPU it joins convolution, bias and activation into one call, for which cuDNN has
# no float32 kernel without TF32: what it then compiles fails. And it tries Triton's products beside
# cuBLAS's: that made the first update 100 s later, and bfloat16's updates no faster (docs/gpu.md).
XLA = {
    "xla_disable_hlo_passes": "cudnn-fused-convolution-rewriter",
    "xla_gpu_enable_triton_gemm": "false",
}


@contextmanager
def quietly() -> Iterator[None]:
    """Hide what TensorFlow's libraries print while loading, and load it as training wants it.

    With one Keras instead of two, and with oneDNN, which it leaves off on a CPU without AVX-512,
    though it is faster there too. What the user has set wins. Before TensorFlow is imported, which
    reads these settings then.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow imports a Keras, used here or not: let it be the one that Probability imports too.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in XLA.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [flags, *missing]))
    # Not all of a GPU's memory at once: environments render there too.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def uses_onednn() -> bool:
    """Return whether TensorFlow, loaded `quietly`, computes with oneDNN on a CPU."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"


def first_device() -> str:
    """Return the name of the first GPU, of the CPU where there is none."""
    import tensorflow as tf

    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def use_threads(count: int | None, operations: float) -> None:
    """Set TensorFlow's intra-op and inter-op threads, both to `count`.

    None leaves them to TensorFlow, one for each core, except on two cores where an update takes few
    floating-point `operations`: it is faster with an operation on each core (docs/performance.md).
    Only warns where TensorFlow has computed before, with other threads.
    """
    within = beside = count
    if not count and operations < SMALL_UPDATE and intraop_threads() == 2:
        within, beside = 1, 2
    if within:
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(within)
            tf.config.threading.set_inter_op_parallelism_threads(beside)
        except RuntimeError:
            told = "TensorFlow has computed in this process before: its threads stay as they are"
            warnings.warn(told, stacklevel=2)


def intraop_threads() -> int:
    """Return how many threads TensorFlow shares an operation among, unless told otherwise."""
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    return (int(told) if told.isdigit() else 0) or machine.cores()[0]
