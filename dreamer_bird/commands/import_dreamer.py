"""The command `import`: a run that begins with weights which the public Dreamer has saved.

Its `variables.pkl` holds, without names: the step, the weights of each network in the order of
`layout`, and among them scalars, the running means of its metrics.
"""

import shlex
from argparse import Namespace
from pathlib import Path

import numpy as np

from dreamer_bird.commands.arguments import Parser, as_path, called, parse_flags
from dreamer_bird.commands.pickles import read_arrays
from dreamer_bird.config import RULES, Config, load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.tasks import EPISODE
from dreamer_bird.errors import ConfigError, nearest
from dreamer_bird.training import checkpoint
from dreamer_bird.training.driver import start_worker
from dreamer_bird.training.logdir import check_logdir, claim_logdir
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.tensorflow import quietly

PRESET = "dreamer_tf2"
PRECISION = "float32"
SETTINGS = {"variant": "dreamer", "precision": PRECISION}  # unless flags say otherwise
# What `--sizes` may hold, and the settings that each of them is; the last word is the later one's.
SIZES = {
    "depth": ("model.depth",),
    "stoch": ("model.stoch",),
    "deter": ("model.deter", "model.hidden"),  # Dreamer has one size for both
    "hidden": ("model.hidden",),
    "units": ("model.units", "actor.units", "value.units"),
    "reward_layers": ("model.reward_layers",),
    "actor_layers": ("actor.layers",),
    "value_layers": ("value.layers",),
}
EXAMPLE = "depth=32,units=400"
SIDE = 64  # pixels, of the images that the public Dreamer sees
MOST_STEPS = RULES["steps"].high
# The order of the networks in the file; within one, that of its layers' names and of these.
NETWORKS = ("actor", "decoder", "rssm", "encoder", "discount", "reward", "value")
WEIGHTS = ("kernel", "recurrent_kernel", "bias")

Shapes = dict[str, tuple[int, ...]]


def main(arguments: list[str]) -> int:
    """Write a run with the weights of a file into a new logdir, and return 0."""
    flags, settings, presets = _parse(arguments)
    config = load(settings, presets)
    if (config.obs, config.env.size) != ("pixels", SIDE):
        raise ConfigError(f"--obs, --env.size: Dreamer's networks see images of {SIDE}x{SIDE}")
    logdir = Path(config.logdir)
    # Without a checkpoint it is an import that failed, which this is again.
    left = {path.name for path in logdir.iterdir()} if logdir.is_dir() else set()
    if left - {"config.yaml", "checkpoints"} or checkpoint.newest_first(logdir / "checkpoints"):
        raise ConfigError(f"--logdir {logdir}: is not empty; choose a new one")
    check_logdir(config)
    arrays = read_arrays(flags.file)
    with start_worker(config, "import") as env:
        spec = env.spec
    begun = new_arrays(config, spec)
    try:
        step, weights = name_arrays(arrays, layout(begun))
    except ValueError as error:
        raise ConfigError(f"{flags.file}: {error}") from None
    write_run(config, spec, step, begun | weights)
    count = sum(values.size for values in weights.values())
    print(f"{config.logdir}: {count:,} weights, of environment step {step:,}")
    print("the file holds neither episodes nor Adam's moments; to go on training without them:")
    if config.steps <= step:  # as many again, or it would end at once
        settings["steps"] = step + config.steps
    words = [f"--{key}={value}" for key, value in settings.items()]
    print(shlex.join([*called(), "--configs", *presets, *words]))
    return 0


def parse_sizes(text: str) -> dict[str, object]:
    """Return the settings that `depth=16,units=128` means; ConfigError names a bad one."""
    sizes = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if not name:
            valid = f"write {EXAMPLE} with names of {', '.join(SIZES)}"
            raise ConfigError(f"--sizes {text}: a part without a name; {valid}")
        if name not in SIZES:
            raise ConfigError(f"--sizes {text}: unknown {name}; {nearest(name, SIZES)}")
        try:
            sizes[name] = RULES[SIZES[name][0]].convert(value)
        except ValueError as error:
            raise ConfigError(f"--sizes {text}: {name} {error}") from None
    return {key: sizes[name] for name in SIZES if name in sizes for key in SIZES[name]}


def new_arrays(config: Config, spec: Spec) -> Arrays:
    """Return all that a checkpoint holds of an agent that has just been made."""
    with quietly():
        from dreamer_bird.agent.agent import Agent

    agent = Agent(config.replace(precision=PRECISION), spec)
    return {name: variable.numpy() for name, variable in agent.named_variables().items()}


def layout(arrays: Arrays) -> Shapes:
    """Return the shapes of an agent's weights by our names, in the order of the file."""

    def place(name: str) -> tuple[int, str, int, int]:
        network, layer, weight = name.split("/")
        word = layer.rstrip("0123456789")
        number = int(layer.removeprefix(word) or 0)
        return NETWORKS.index(network), word, number, WEIGHTS.index(weight)

    names = [name for name in arrays if name.partition("/")[0] in NETWORKS]
    return {name: arrays[name].shape for name in sorted(names, key=place)}


def name_arrays(arrays: tuple[np.ndarray, ...], shapes: Shapes) -> tuple[int, Arrays]:
    """Return the environment step and the weights by name.

    The step counts environment steps, action repeat included. A ValueError names the first array
    that has another shape than `shapes` wants, or holds something else than finite numbers.
    """
    counter, *others = arrays or (np.zeros(1),)
    if counter.ndim or counter.dtype.kind != "i" or not 0 <= counter <= MOST_STEPS:
        raise ValueError("does not begin with a number of steps, as those of Dreamer do")
    found, weights = [array for array in others if array.ndim], {}
    for (name, shape), array in zip(shapes.items(), found, strict=False):
        if array.shape != shape:
            wanted = f"and the sizes and the task want {shape}"
            raise ValueError(f"{name} has shape {array.shape}, {wanted}")
        with np.errstate(over="ignore"):
            weights[name] = array.astype(np.float32)
        if array.dtype.kind != "f" or not np.isfinite(weights[name]).all():
            raise ValueError(f"{name} holds something else than finite numbers")
    if len(found) != len(shapes):
        raise ValueError(f"has {len(found)} weights, and the sizes want {len(shapes)}")
    return int(counter), weights


def write_run(config: Config, spec: Spec, step: int, arrays: Arrays) -> None:
    """Write settings and a checkpoint of an agent's arrays into the logdir, as training would."""
    train = config.train
    header = {
        **dict.fromkeys(("step", "prefilled", "evaluated_step", "saved_step"), step),
        "episodes": step // (config.env.time_limit or EPISODE),
        # Nothing is due before the next episode: there is no replay to learn from.
        "updates": train.updates,
        "next_eval": step + train.eval_every,
        "next_save": step + train.save_every,
        "bad_updates": (0, ""),
        "collector": [(0, ""), 0, 0],
        "evaluator": [(0, ""), 0, 0],
        "copied": None,
        "replay": [],
        "spec": spec,
        "metrics_size": 0,
        "variant": config.variant,
        "task": config.task,
        "precision": PRECISION,
    }
    with claim_logdir(config) as logdir:
        checkpoint.save(logdir / "checkpoints", step, arrays, header, train.keep)


def _parse(arguments: list[str]) -> tuple[Namespace, dict[str, object], list[str]]:
    """Return the flags of this command, and the settings and presets of the run."""
    parser = Parser(
        "import",
        "Make a run of the weights that the public Dreamer saved.",
        "--from variables.pkl --task dmc_walker_walk --logdir imported",
    )
    add = parser.add_argument
    add("--from", type=as_path, required=True, dest="file", help="its variables.pkl; not unpickled")
    add("--sizes", default="", help=f"{EXAMPLE}, of {', '.join(SIZES)}")
    add("--task", required=True, help="that it was trained on")
    add("--logdir", required=True, help="new folder for the run")
    parser.epilog = (
        f"Sizes that are not given are those of the preset {PRESET}. Other settings as for "
        "training, where Dreamer was not run as published: --env.shadows false ..."
    )
    flags, settings = parser.parse_beside_settings(arguments)
    settings, presets = parse_flags(settings)
    sizes = parse_sizes(flags.sizes) if flags.sizes else {}
    named = {"task": flags.task, "logdir": flags.logdir}
    return flags, SETTINGS | sizes | settings | named, [PRESET, *presets]
