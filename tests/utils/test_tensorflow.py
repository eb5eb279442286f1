"""How TensorFlow is loaded, each time in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import pathlib, sys
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.updates import spec_of
from dreamer_bird.config import load
from dreamer_bird.agent.flops import flops_per_step
from dreamer_bird.utils.tensorflow import use_threads
config = load(*parse_flags(sys.argv[1:]))
use_threads(config.threads, flops_per_step(config, spec_of(config)))
import tensorflow as tf
tf.ones([8, 8]) @ tf.ones([8, 8])
names = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
threading = tf.config.threading
told = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
print(names.count("tf_Compute"), *told)
"""

PROGRAM = """
import sys, warnings
import tensorflow as tf
from dreamer_bird import main
tf.ones([8, 8]) @ tf.ones([8, 8])
before = warnings.formatwarning
status = main(sys.argv[1:])
assert warnings.formatwarning is before
sys.exit(status)
"""
KEPT = "-c: warning: TensorFlow has computed in this process before: its threads stay as they are"
STEP = "bench --part step --steps 1 --configs debug --obs state --threads 1 --json"
SHARED = "--configs debug --task dmc_pendulum_swingup --obs state --threads 1 --devices 2"


def threads(flags: str, cores: int | None = None) -> list[int]:
    """Return how many threads there are, and how many TensorFlow was told within operations and
    beside each other, zero if nothing.
    """
    line = [sys.executable, "-c", CODE, *flags.split()]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TF_NUM_")}
    env |= {"TF_NUM_INTRAOP_THREADS": str(cores)} if cores else {}
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the names of threads")
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 5])
def test_tensorflow_starts_as_many_threads_as_it_is_told(count):
    assert threads(f"--threads {count}") == [count, count, count]
    # A setting counts for more than the share that a sweep gives a run by this variable.
    assert threads(f"--threads {count}", cores=2) == [count, count, count]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the names of threads")
def test_a_small_update_on_two_cores_has_an_operation_on_each():
    assert threads("--configs cpu", cores=2) == [2, 1, 2]
    assert threads("--configs cpu", cores=3)[1:] == [0, 0]
    assert threads("--configs dreamer_tf2", cores=2)[1:] == [0, 0]
    usable = len(os.sched_getaffinity(0))
    assert threads("--configs cpu") == ([2, 1, 2] if usable == 2 else [usable, 0, 0])


def test_a_command_in_a_program_that_has_computed_keeps_the_threads():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *STEP.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step_s_median"] > 0
    assert told_by(done) == [KEPT]


def test_a_command_in_a_program_that_has_computed_cannot_choose_devices(tmp_path):
    line = [sys.executable, "-c", PROGRAM, *SHARED.split(), "--logdir", str(tmp_path / "run")]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    kept, refused = told_by(done)
    assert kept == KEPT
    assert refused.startswith("-c: devices are chosen before TensorFlow computes, so in a process ")
    assert not list(tmp_path.iterdir())


def told_by(done):
    """Return the lines that are of the command, not of TensorFlow's libraries."""
    return [line for line in done.stderr.splitlines() if line.startswith("-c: ")]


PASSES = "--xla_disable_hlo_passes=cudnn-fused-convolution-rewriter"


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("TF_FORCE_GPU_ALLOW_GROWTH", None, "true"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "0", "0"),
        ("XLA_FLAGS", None, PASSES),
        ("XLA_FLAGS", "--xla_dump_to=a", f"--xla_dump_to=a {PASSES}"),
        ("XLA_FLAGS", "--xla_disable_hlo_passes=", "--xla_disable_hlo_passes="),
    ],
)
def test_a_gpu_is_used_as_training_wants_unless_the_user_says_how(name, setting, told):
    code = (
        "import os; from dreamer_bird.utils.tensorflow import quietly\n"
        f"with quietly(): print(os.environ['{name}'])"
    )
    env = {key: value for key, value in os.environ.items() if key != name}
    env |= {name: setting} if setting is not None else {}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == f"{told}\n"


def test_one_keras_is_loaded_and_not_two():
    code = (
        "import sys; from dreamer_bird.utils.tensorflow import quietly\n"
        "with quietly(): import dreamer_bird.agent.agent\n"
        "print([name for name in ('keras', 'tf_keras') if name in sys.modules])"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "['tf_keras']\n"


@pytest.mark.parametrize(("setting", "used"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_onednn_is_on_unless_the_user_turns_it_off(setting, used):
    code = (
        "from dreamer_bird.utils.tensorflow import quietly, uses_onednn\n"
        "with quietly(): from tensorflow.python.framework import test_util\n"
        "print(test_util.IsMklEnabled(), uses_onednn())"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, env=env | setting, capture_output=True, text=True)
    assert done.stdout == f"{used} {used}\n", done.stderr
