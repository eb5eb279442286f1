"""How TensorFlow is loaded, each time in a process of its own."""

import json
import os
import sys

import pytest
from command_line import python

from dreamer_bird.agent.flops import flops_per_step
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.timing import spec_of
from dreamer_bird.config import load
from dreamer_bird.utils.tensorflow import use_threads

CODE = """
import pathlib, sys
from dreamer_bird.utils.tensorflow import use_threads
use_threads(int(sys.argv[1]), 0)
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
step = "bench --part step --steps 1 --configs debug --obs state --threads 1 --json"
shared = "--configs debug --task dmc_pendulum_swingup --obs state --threads 1 --devices 2 --logdir"
print(main(step.split()), main([*shared.split(), sys.argv[1]]))
assert warnings.formatwarning is before
"""
KEPT = "-c: warning: TensorFlow has computed in this process before: its threads stay as they are"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the names of threads")
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 5])
def test_tensorflow_starts_as_many_threads_as_it_is_told(count):
    # A setting counts for more than the share that a sweep gives a run by this variable.
    done = python("-c", CODE, count, TF_NUM_INTRAOP_THREADS="2")
    assert done.stdout == f"{count} {count} {count}\n", done.stderr


@pytest.fixture
def told(monkeypatch):
    """Return how many threads TensorFlow is told for an update, within operations and beside each
    other, where these flags are given and it has so many cores.
    """
    import tensorflow as tf

    def told(flags, cores=None):
        config, counts = load(*parse_flags(flags.split())), []
        for part in ("intra", "inter"):
            setter = f"set_{part}_op_parallelism_threads"
            monkeypatch.setattr(tf.config.threading, setter, counts.append)
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
        if cores:
            monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", str(cores))
        use_threads(config.threads, flops_per_step(config, spec_of(config)))
        return counts

    return told


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may use all cores")
def test_a_small_update_on_two_cores_has_an_operation_on_each(told):
    assert told("--threads 5") == told("--threads 5 --configs cpu", cores=2) == [5, 5]
    assert told("--configs cpu", cores=2) == [1, 2]
    assert told("--configs cpu", cores=3) == told("--configs dreamer_tf2", cores=2) == []
    usable = len(os.sched_getaffinity(0))
    assert told("--configs cpu") == ([1, 2] if usable == 2 else [])


def test_a_command_in_a_program_that_has_computed_keeps_the_threads_and_chooses_no_devices(
    tmp_path,
):
    done = python("-c", PROGRAM, tmp_path / "run", CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    figures, *_, statuses = done.stdout.splitlines()
    assert json.loads(figures)["step_s_median"] > 0 and statuses == "0 1"
    # The lines of the command, not of TensorFlow's libraries.
    *kept, refused = (line for line in done.stderr.splitlines() if line.startswith("-c: "))
    assert kept == [KEPT, KEPT]
    assert refused.startswith("-c: devices are chosen before TensorFlow computes, so in a process ")
    assert not list(tmp_path.iterdir())


PASSES = "--xla_disable_hlo_passes=cudnn-fused-convolution-rewriter"
TRITON = "--xla_gpu_enable_triton_gemm=false"


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("TF_FORCE_GPU_ALLOW_GROWTH", None, "true"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "0", "0"),
        ("XLA_FLAGS", None, f"{PASSES} {TRITON}"),
        ("XLA_FLAGS", "--xla_dump_to=a", f"--xla_dump_to=a {PASSES} {TRITON}"),
        ("XLA_FLAGS", "--xla_disable_hlo_passes=", f"--xla_disable_hlo_passes= {TRITON}"),
        (
            "XLA_FLAGS",
            "--xla_gpu_enable_triton_gemm=true",
            f"--xla_gpu_enable_triton_gemm=true {PASSES}",
        ),
    ],
)
def test_a_gpu_is_used_as_training_wants_unless_the_user_says_how(name, setting, told):
    code = (
        "import os; from dreamer_bird.utils.tensorflow import quietly\n"
        f"with quietly(): print(os.environ['{name}'])"
    )
    done = python("-c", code, without=[name], **({name: setting} if setting is not None else {}))
    assert done.stdout == f"{told}\n"


@pytest.mark.parametrize(("setting", "used"), [({}, True), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, False)])
def test_one_keras_is_loaded_and_onednn_is_on_unless_the_user_turns_it_off(setting, used):
    code = (
        "import sys; from dreamer_bird.utils.tensorflow import quietly, uses_onednn\n"
        "with quietly(): import dreamer_bird.agent.agent\n"
        "print([name for name in ('keras', 'tf_keras') if name in sys.modules])\n"
        "from tensorflow.python.framework import test_util\n"
        "print(test_util.IsMklEnabled(), uses_onednn())"
    )
    done = python("-c", code, without=("TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS"), **setting)
    assert done.stdout == f"['tf_keras']\n{used} {used}\n", done.stderr
