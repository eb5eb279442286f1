"""The command `export`: a SavedModel that acts without this package, or a run's weights alone."""

import os
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dreamer_bird.commands.arguments import Parser, as_path
from dreamer_bird.commands.timing import random_observations
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.snapshot import Snapshot, build_quietly, read_snapshot
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import check_writable
from dreamer_bird.utils.signals import unwinding
from dreamer_bird.utils.tensorflow import quietly

if TYPE_CHECKING:
    from dreamer_bird.agent.agent import Agent

CHECKED_STEPS = 10
TOLERANCE = 1e-5  # of actions, on the machine that wrote it


def main(arguments: list[str]) -> int:
    """Write a SavedModel that acts the same, or with `--run` a run of the weights; return 0."""
    flags = _parse(arguments)
    snapshot = read_snapshot(flags.logdir, flags.checkpoint)
    if os.path.lexists(flags.out):  # a link to nothing, too
        raise ConfigError(f"--out {flags.out}: exists already")
    check_writable(f"--out {flags.out}", flags.out.parent)
    parent = flags.out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, as everything that is written.
    with unwinding(), tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as folder:
        written = Path(folder, "written")
        told = (save_run if flags.run else save_checked)(snapshot, written, flags.out)
        written.rename(flags.out)
    print(f"{flags.out}: {told}")
    return 0


def save_checked(snapshot: Snapshot, folder: Path, out: Path) -> str:
    """Write a SavedModel, to be moved to `out`; say how far its actions are off, or RunError."""
    # Another graph rounds otherwise in half precision: its actions differed by a hundredth.
    config = snapshot.config.replace(precision="float32")
    agent = build_quietly(snapshot._replace(config=config))
    with tempfile.TemporaryDirectory() as elsewhere:
        link = Path(elsewhere, "link")  # for TensorFlow, which takes names in UTF-8 alone
        link.symlink_to(folder.parent)
        save(agent, snapshot, link / folder.name)
        difference = compare(agent, snapshot, link / folder.name)
    if not difference <= TOLERANCE:  # nor is a NaN
        raise RunError(f"{out}: not written, its actions differ by {difference:.2g}")
    return f"actions differ by {difference:.1g} over {CHECKED_STEPS} steps"


def save_run(snapshot: Snapshot, folder: Path, out: Path) -> str:
    """Write what `evaluate`, `predict`, `export` and `load` need of a run; say what was written."""
    names = build_quietly(snapshot).named_variables()
    header = {key: snapshot.config[key] for key in ("task", "variant", "precision")}
    header |= {"step": snapshot.step, "spec": snapshot.spec, "replay": []}
    arrays = {name: snapshot.arrays[name] for name in names}
    checkpoint.save(folder / "checkpoints", snapshot.step, arrays, header, keep=1)
    snapshot.config.replace(logdir=str(out)).save(folder / "config.yaml")
    return f"weights of step {snapshot.step:,}"


def save(agent: "Agent", snapshot: Snapshot, folder: Path) -> None:
    """Write a SavedModel with `initial(batch_size)` and `act(obs, state, seed)`.

    `obs` and `state` are as those of `Agent.policy`, with any batch size `[B, ...]`; `act` returns
    the mode of the policy, `[B, A]`, and the next state.
    """
    import tensorflow as tf

    exported = tf.Module("policy")
    batch_size = tf.TensorSpec([], tf.int32, "batch_size")
    exported.initial = tf.function(agent.initial, input_signature=[batch_size])

    def act(obs: dict, state: tuple, seed: tf.Tensor) -> tuple:
        return agent.policy(obs, state, seed, False)

    obs = {
        key: tf.TensorSpec([None, *shape], tf.uint8 if key == "image" else tf.float32, key)
        for key, shape in snapshot.spec.observation.items()
    }
    state = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), agent.initial(1)
    )
    signature = [obs, state, tf.TensorSpec([2], tf.int32, "seed")]
    exported.act = tf.function(act, input_signature=signature, autograph=False)
    exported.weights = exported.act.get_concrete_function().variables  # of what acts, no others
    with quietly():
        tf.saved_model.save(exported, str(folder))


def compare(agent: "Agent", snapshot: Snapshot, folder: Path) -> float:
    """Return how far latent states and nine of ten actions of the SavedModel are at most off.

    On random inputs, each step from the same state. The tenth action may be another one: the mode
    is the most likely of some samples, and between two that are as likely rounding decides.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    rng = np.random.default_rng(0)
    state, latents, actions = loaded.initial(2), [], []
    for step in range(CHECKED_STEPS):
        obs = random_observations(snapshot.spec, (2,), rng)
        seed = seeds.stateless(0, "export", step)
        other, (their_latent, _) = loaded.act(obs, state, seed)
        action, state = agent.act(obs, state, seed, False)
        latents += [_difference(state[0][key], their_latent[key]) for key in their_latent]
        actions += np.abs(action - other).max(-1).tolist()
    return max(float(np.max(latents)), float(np.quantile(actions, 0.9, method="lower")))


def _difference(ours: Any, theirs: Any) -> float:
    """Return the largest difference, relative to numbers that are larger than 1."""
    return float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(ours))))


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser(
        "export",
        "Write a trained policy as a SavedModel that acts without this package.",
        "--logdir logdir/dmc_walker_walk/bird/0 --out policy",
    )
    add = parser.add_argument
    add("--logdir", type=as_path, required=True, help="the run; nothing in it changes")
    add("--out", type=as_path, required=True, help="folder to write, which must not exist")
    add("--checkpoint", type=as_path, help="file of an older checkpoint of this run")
    add("--run", action="store_true", help="write the run, without what only training needs")
    return parser.parse(arguments)
