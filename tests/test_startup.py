"""How TensorFlow is loaded, each time in a process of its own."""

import os
import subprocess
import sys

import pytest

CODE = """
import pathlib, sys
from dreamer_bird.startup import use_threads
use_threads(eval(sys.argv[1]))
import tensorflow as tf
tf.ones([8, 8]) @ tf.ones([8, 8])
names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
print(names.count("tf_Compute"), tf.config.threading.get_intra_op_parallelism_threads())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the names of threads")
@pytest.mark.parametrize("count", [None, 1, 5])
def test_tensorflow_starts_as_many_threads_as_it_is_told(count):
    line = [sys.executable, "-c", CODE, str(count)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.stdout == f"{count or len(os.sched_getaffinity(0))} {count or 0}\n"


def test_one_keras_is_loaded_and_not_two():
    code = (
        "import sys; from dreamer_bird.startup import quietly\n"
        "with quietly(): import dreamer_bird.agent\n"
        "print([name for name in ('keras', 'tf_keras') if name in sys.modules])"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "['tf_keras']\n"
