"""The number format of matrix products and convolutions, and whether XLA compiles them."""

from pathlib import Path

import tensorflow as tf

BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}  # as Linux names them


def resolve_precision(setting: str) -> str:
    """Return the setting, or for "auto" the format that this machine is built for.

    bfloat16 on a GPU of compute capability 8.0 or more and on a CPU with instructions for it,
    float16 on an older GPU, float32 elsewhere.
    """
    if setting != "auto":
        return setting
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        return "bfloat16" if capability and capability >= (8, 0) else "float16"
    cpuinfo = Path("/proc/cpuinfo")
    words = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "bfloat16" if BFLOAT16_FLAGS.intersection(words) else "float32"


def resolve_xla(setting: str, replicas: int) -> bool:
    """Return whether XLA compiles updates and the policy beside them: for "auto", on a lone GPU."""
    if setting == "auto":
        return replicas == 1 and bool(tf.config.list_physical_devices("GPU"))
    return setting == "true"
