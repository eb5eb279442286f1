"""What `gpu-check` tries, each in a process of its own; devices are named by the caller."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.bench import PROGRAM, first_step, logged_blocks, next_steps, run_figures
from dreamer_bird.commands.gpu_check.kernels import profile_updates
from dreamer_bird.commands.timing import agent_of, random_batch, time_updates
from dreamer_bird.config import load
from dreamer_bird.errors import RunError
from dreamer_bird.utils import seeds
from dreamer_bird.utils.processes import bound, error_line, failure, for_child, run_python
from dreamer_bird.utils.tensorflow import quietly

LOSS_SCALE = 2.0**8  # with which no gradient of a first update from pixels overflows in float16
TOO_LARGE = 2.0**100  # one with which all do, though it is a float32
STEPS = 10  # training steps timed
BLOCKS_BEFORE, BLOCKS_AFTER = 2, 6  # of updates, before a run is stopped and when it goes on


def in_process(trial: str, limit: float, *arguments: object) -> dict:
    """Return what a trial finds in a process of its own; RunError if it fails or takes too long."""
    code = "from dreamer_bird.commands.gpu_check.trials import main; main()"
    try:
        done = run_python(code, trial, json.dumps(arguments), timeout=limit)
    except subprocess.TimeoutExpired:
        raise RunError(f"no answer within {limit:.0f} s") from None
    if done.returncode:
        raise RunError(failure(done))
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Make the trial that the command line names, and print what it found as the last line."""
    trial, arguments = sys.argv[1:]
    with quietly():
        import tensorflow  # noqa: F401
    print(json.dumps(TRIALS[trial](*json.loads(arguments)), allow_nan=False))


@contextmanager
def _turn(folder: str, alone: bool) -> Iterator[None]:
    """Wait until no other trial of that check is timed, or if `alone`, runs at all."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def look_around() -> dict:
    """Return the GPUs that TensorFlow sees, what it was built with, and what it would choose."""
    import tensorflow as tf

    from dreamer_bird.agent.objectives import OBJECTIVES
    from dreamer_bird.agent.precision import resolve_precision, resolve_xla

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    build = tf.sysconfig.get_build_info()
    return {
        "gpus": [each.get("device_name", "GPU") for each in details],
        "capability": [*details[0].get("compute_capability", (0, 0))] if details else [0, 0],
        "tensorflow": tf.__version__,
        **{key: build.get(f"{key}_version", "none") for key in ("cuda", "cudnn")},
        "precision": resolve_precision("auto"),
        "xla": resolve_xla("auto", 1),
        "variants": [*OBJECTIVES],
    }


def compare_updates(folder: str, words: list[str], reference: list, other: list) -> dict[str, dict]:
    """Return how far another first update is from that of `reference`, without TF32.

    Settings are words of the command line. Each of the two is a pair: names of the devices that
    share the update, and settings of its own. Distances are relative to the reference: of a loss
    to its size, of a part's gradients to their norm.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    with _turn(folder, alone=False):
        expected, found = (_first_update(words, *each) for each in (reference, other))
    losses, gradients = (
        {key: _distance(ours[key], theirs[key]) for key in theirs}
        for ours, theirs in zip(found, expected, strict=True)
    )
    return {"losses": losses, "gradients": gradients}


def _first_update(words: list[str], devices: Sequence[str], more: list[str]) -> tuple[dict, dict]:
    """Return losses, and by part the gradients, of which Adam's first moments are multiples."""
    import tensorflow as tf

    config = load(*parse_flags([*words, *more]))
    several = len(devices) > 1
    with tf.distribute.MirroredStrategy(devices).scope() if several else tf.device(devices[0]):
        agent = agent_of(config)
    where = agent.optimizers["value"].weights[0].device
    if not several and not where.endswith(devices[0]):  # TensorFlow takes another one silently
        raise RunError(f"{devices[0]}: weights are on {where} instead")
    for optimizer in agent.optimizers.values():
        optimizer.loss_scale.assign(min(LOSS_SCALE, optimizer.loss_scale.numpy()))
    with nullcontext() if several else tf.device(devices[0]):
        metrics = agent.train_step(random_batch(config), seeds.stateless(0, "gpu-check"))
    if metrics["skipped_updates"] != 0:
        raise RunError("the update was skipped, since something in it is not finite")
    losses = {key: value.numpy() for key, value in metrics.items() if key.endswith("_loss")}
    parts: dict[str, list[np.ndarray]] = {}
    for name, variable in agent.named_variables().items():
        _, first, weight = name.partition("_optimizer/first/")
        if first:
            parts.setdefault(weight.split("/")[0], []).append(variable.numpy().ravel())
    return losses, {part: np.concatenate(moments) for part, moments in parts.items()}


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30))


def provoke_overflow(folder: str, words: list[str], device: str) -> dict:
    """Make an update that overflows in float16, and then some with ever lower loss scales until
    one does not; RunError if any is taken for what it is not.
    """
    import tensorflow as tf

    config = load(*parse_flags([*words, "--precision", "float16"]))
    seed = seeds.stateless(0, "gpu-check")
    with _turn(folder, alone=False), tf.device(device):
        batch, agent = random_batch(config), agent_of(config)
        model = agent.optimizers["model"]

        for scale in (TOO_LARGE, *(LOSS_SCALE / 2**halved for halved in range(9))):
            model.loss_scale.assign(scale)
            before = [weight.numpy() for weight in model.weights]
            skipped = bool(agent.train_step(batch, seed)["skipped_updates"])
            pairs = zip(model.weights, before, strict=True)
            changed = any((weight.numpy() != old).any() for weight, old in pairs)
            found = skipped, changed, float(model.loss_scale)
            overflows = skipped or scale == TOO_LARGE
            expected = overflows, not overflows, max(1.0, scale / 2) if overflows else scale
            if found != expected:
                raise RunError(f"(skipped, weights changed, loss scale) is {found}, not {expected}")
            if not skipped:
                return {"scale": TOO_LARGE, "scale_after": TOO_LARGE / 2}
    raise RunError("no update was made after an overflow")


def time_steps(folder: str, words: list[str], tf32: bool, steps: int = STEPS) -> dict:
    """Return what `bench` says of a training step, with TF32 or without, and a `profile` of it.

    Compiles beside other trials of the check in that folder, and is timed when none of them runs.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    config = load(*parse_flags(words))
    updates = time_updates(config)
    with _turn(folder, alone=False):
        found = first_step(updates)
    with _turn(folder, alone=True):
        found |= next_steps(config, updates, steps)
        try:
            return found | {"profile": profile_updates(updates)}
        except Exception as error:  # whatever it is, the step was timed
            return found | {"profile": [], "profile_error": str(error)}


TRIALS: dict[str, Callable] = {
    each.__name__: each for each in (look_around, compare_updates, provoke_overflow, time_steps)
}


def try_run(words: list[str], limit: float) -> dict:
    """Train, stop by SIGTERM after some blocks of updates, go on; return how fast it went on.

    The steps of `words` are such that `BLOCKS_AFTER` are left. RunError if the run fails, does not
    stop as it should, or begins anew.
    """
    end = time.monotonic() + limit
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder, "run")
        line = [*words, f"--logdir={logdir}"]
        _stop(line, logdir, end)
        try:
            done = run_python(PROGRAM, *line, timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise RunError(f"it has not ended within {limit:.0f} s") from None
        if done.returncode:
            raise RunError(f"resumed: {failure(done)}")
        if "resumed at step" not in done.stdout:
            raise RunError("it began anew instead of going on from its checkpoint")
        blocks = logged_blocks(logdir)
    # The first of the second process was traced.
    return run_figures(load(*parse_flags(words)), blocks[1 - BLOCKS_AFTER :])


def _stop(line: list[str], logdir: Path, end: float) -> None:
    """Start a run and stop it by SIGTERM; RunError unless it ends as it should, with 143."""
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", bound(PROGRAM), *line],
            env=for_child(os.environ),
            stdout=subprocess.DEVNULL,
            stderr=told,
        )
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
                log = logdir / "metrics.jsonl"
                if log.exists() and log.read_text().count("model_loss") >= BLOCKS_BEFORE:
                    process.send_signal(signal.SIGTERM)
                    process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            raise RunError("SIGTERM did not end it within 60 s") from None
        finally:
            running = process.poll() is None
            process.kill()
        if running:
            raise RunError("it was too slow to be stopped in time")
        if process.returncode != 128 + signal.SIGTERM:
            told.seek(0)
            said = error_line(told.read())
            raise RunError(f"stopped by SIGTERM it ended with {process.returncode}: {said}")
