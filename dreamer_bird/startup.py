"""How TensorFlow is loaded."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Hide what TensorFlow's libraries print while loading, and load one Keras instead of two.

    Before TensorFlow is imported, which reads both settings then.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow imports a Keras, used here or not: let it be the one that Probability imports too.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def use_threads(count: int | None) -> None:
    """Let TensorFlow compute with so many threads, None: as many as there are cores.

    Before anything is computed; each operation is split among them, and as many run at once.
    """
    if count:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
