"""What `doctor` tries in processes of their own: a training step, and frames of the environment."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.timing import spec_of, time_steps, time_updates
from dreamer_bird.config import Config, load
from dreamer_bird.envs.rendering import BACKENDS
from dreamer_bird.errors import RunError
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.machine import memory_taken
from dreamer_bird.utils.processes import error_line, failure, run_python
from dreamer_bird.utils.tensorflow import use_threads

if TYPE_CHECKING:
    import gymnasium

PATIENCE = 900  # seconds; the first training step is traced, and may have other runs beside it
STEPS = 20  # of the environment


class Probe(NamedTuple):
    """What a process of its own, with TensorFlow, found out before it ended or failed."""

    tensorflow: Mapping | None  # version, gpus (name and capability), precision, auto
    training: Mapping | None  # step_s, learner_bytes, checkpoint_bytes
    error: str  # the last line that it wrote, where it failed


class Frames(NamedTuple):
    """How an environment's worker fared."""

    backend: str  # as MUJOCO_GL has it
    renderer: str  # as OpenGL calls itself, "" where nothing is rendered
    worker_bytes: float
    milliseconds: float  # an agent step
    error: str = ""
    repeats: bool = True  # of one seed, the same episode

    @property
    def in_software(self) -> bool:
        """Whether the processor renders, by Mesa."""
        return any(name in self.renderer for name in ("llvmpipe", "softpipe"))


def try_training(settings: list[str]) -> Probe:
    """Have another process load TensorFlow and train a step; whatever becomes of it is told."""
    code = "import sys; from dreamer_bird.commands.doctor.trials import probe; probe(sys.argv[1:])"
    try:
        done = run_python(code, *settings, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Probe(None, None, f"no answer within {PATIENCE} s")
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    seen, training = (*answers, None, None)[:2]
    return Probe(seen, training, failure(done) if done.returncode else "")


def probe(settings: list[str]) -> None:
    """Print a JSON object on what TensorFlow sees here, then one on a training step."""
    config = load(*parse_flags(settings))
    import tensorflow as tf

    from dreamer_bird.agent.agent import Agent
    from dreamer_bird.agent.flops import flops_per_step
    from dreamer_bird.agent.precision import resolve_precision

    spec = spec_of(config)
    use_threads(config.threads, flops_per_step(config, spec))
    devices = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, devices)
    gpus = [
        (each.get("device_name", "GPU"), "{}.{}".format(*each.get("compute_capability", "??")))
        for each in details
    ]
    auto, chosen = resolve_precision("auto"), resolve_precision(config.precision)
    seen = {"version": tf.__version__, "gpus": gpus, "precision": chosen, "auto": auto}
    print(json.dumps(seen), flush=True)
    config = config.replace(precision=chosen)
    _, seconds = islice(time_updates(config), 2)
    taken = memory_taken()
    # With an overlap a checkpoint holds a copy of the policy too.
    agents = [Agent(config, spec), *([Agent(config, spec, learns=False)] * config.train.overlap)]
    saved = [variable for agent in agents for variable in agent.named_variables().values()]
    size = sum(each.shape.num_elements() * each.dtype.size for each in saved)
    print(json.dumps({"step_s": seconds, "learner_bytes": taken, "checkpoint_bytes": size}))


def try_environment(config: Config) -> Frames:
    """Play some agent steps in a worker, as training does."""
    try:
        from dreamer_bird.envs.make import environment
        from dreamer_bird.envs.worker import EnvWorker

        make = environment(config.task, obs=config.obs, **config.env)
        with EnvWorker("doctor", partial(_telling, make), config.worker.timeout) as env:
            action = env.spec.idle_action()
            # The first frame sets the renderer up.
            first, again = ([env.reset(0), env.step(action)[0]] for _ in range(2))
            milliseconds = 1000 * float(np.mean([*islice(time_steps(env), STEPS)]))
            repeats = all(map(_alike, first, again))
            return Frames(*env.render(), milliseconds, repeats=repeats)
    except (ImportError, RunError) as error:
        return Frames("", "", 0, 0, error_line(str(error)))


def _alike(first: Arrays, second: Arrays) -> bool:
    """Tell whether two observations are equal, images but for what a GPU may round."""
    return all(
        np.allclose(first[key], second[key], rtol=0, atol=2 * (key == "image")) for key in first
    )


def _telling(make: "Callable[[], gymnasium.Env]") -> "gymnasium.Env":
    """Make an environment whose `render` tells of its process instead of drawing an image."""
    import gymnasium

    class Telling(gymnasium.Wrapper):
        def render(self) -> tuple[str, str, float]:
            """Return the OpenGL in use, how it calls itself, and the most memory, in bytes."""
            backend, name = os.environ.get("MUJOCO_GL", ""), ""
            if "image" in self.env.observation_space.spaces and backend in BACKENDS:
                with suppress(Exception):  # what the environment draws was drawn before
                    import mujoco

                    context = mujoco.GLContext(64, 64)
                    context.make_current()
                    from OpenGL import GL

                    name = GL.glGetString(GL.GL_RENDERER).decode()
            return backend, name, memory_taken()

    return Telling(make())
