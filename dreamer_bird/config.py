"""Settings: configs.yaml, the block of a variant, presets and flags, merged, checked and frozen."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from dreamer_bird.envs.custom import read_kwargs
from dreamer_bird.envs.tasks import (
    EPISODE,
    OBSERVATIONS,
    check_task,
    default_action_repeat,
    default_time_limit,
    may_terminate,
)
from dreamer_bird.errors import ConfigError, nearest
from dreamer_bird.utils.files import replacing

# Beside the modules when installed, else in the root of the checkout.
CONFIG_FILE = Path(__file__).with_name("configs.yaml")
if not CONFIG_FILE.exists():
    CONFIG_FILE = CONFIG_FILE.parents[1] / CONFIG_FILE.name

_MOST = sys.float_info.max


@dataclass(frozen=True)
class Rule:
    """What a setting may be: its type, the range of a number, the choices of a name."""

    kind: type
    low: float = 0
    high: float = _MOST
    above: bool = False  # low itself is excluded
    choices: tuple[str, ...] = ()
    check: Callable[[str], None] | None = None  # raises ValueError
    nullable: bool = False
    multiple_of: int = 0  # if not 0

    def __str__(self) -> str:
        if self.kind in (int, float):
            words = "a whole number" if self.kind is int else "a number"
            words = f"a multiple of {self.multiple_of}" if self.multiple_of else words
            words += f" above {self.low}" if self.above else f" of at least {self.low}"
            words += f" and at most {self.high}" if self.high < _MOST else ""
        else:
            words = "true or false" if self.kind is bool else "text"
        return words + ", or null" * self.nullable

    def convert(self, value: object) -> object:
        """Return text or a YAML scalar in its type; a ValueError says what it must be."""
        if self.nullable and value in (None, "null"):
            return None
        if self.choices:
            value = _SPELLINGS.get(str(value), value)
        try:
            value = self._parse(value)
        except ValueError:
            raise ValueError(f"must be {self}") from None
        if self.choices and value not in self.choices:
            raise ValueError(f"unknown; {nearest(value, self.choices)}")
        if self.check:
            self.check(value)
        return value

    def _parse(self, value: object) -> object:
        if self.kind is bool and str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        if self.kind is bool or isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        if self.kind is str and value != "":
            return str(value)
        number = value if isinstance(value, int) else float(value)
        in_range = self.low <= number <= self.high and not (self.above and number == self.low)
        is_multiple = not self.multiple_of or number % self.multiple_of == 0
        if not (in_range and is_multiple and number == self.kind(number)):
            raise ValueError
        return self.kind(number)


LOGGERS = ("tensorboard", "wandb", "mlflow")  # as their packages are called


def _check_loggers(text: str) -> None:
    for name in text.split(","):
        if name not in LOGGERS:
            raise ValueError(f"{name} is none; choose from {', '.join(LOGGERS)}")


_SPELLINGS = {"32": "float32", "16": "float16", "bf16": "bfloat16"}
_SPELLINGS |= {"True": "true", "False": "false"}  # of YAML's too

# Every setting that exists, and what it may be; `_check_together` adds what ties settings.
_RULES = {
    Rule(int, low=1, high=10**12, nullable=True): "env.time_limit",
    Rule(int, low=1, high=10**9): "steps",  # a checkpoint's name has room for ten digits
    Rule(int, low=1, high=10**12): """train.prefill train.updates train.eval_every train.save_every
        train.keep train.max_skipped""",
    Rule(int, high=1000): "worker.restarts",
    Rule(int, high=10**12): "actor.learning_starts train.prefill_steps",
    # Far beyond what fits in memory, but a slip of the keyboard stops here.
    Rule(int, low=1, high=2**14): """replay.batch model.depth model.deter model.stoch model.hidden
        model.units actor.units value.units""",
    Rule(int, low=1, high=1000): "envs devices planner.horizon planner.iterations",
    Rule(int, low=1, high=10**6): "planner.candidates planner.elites",
    Rule(int, low=1, high=1000, nullable=True): "threads",
    Rule(int, low=1, high=100): """model.state_layers model.reward_layers model.discount_layers
        actor.layers value.layers""",
    # A sequence needs one transition, a lambda return one step to bootstrap from.
    Rule(int, low=2, high=10**6): "replay.length objective.horizon",
    Rule(int, low=0, high=2**31 - 1): "seed",
    Rule(int, low=1, nullable=True): """replay.capacity env.action_repeat
        train.every model.decode_steps objective.imagine_starts""",
    Rule(float, low=0): """train.expl_amount model.free_nats model.kl_scale model.discount_scale
        objective.alpha""",
    Rule(float, low=0, above=True): """model.lr model.clip actor.lr actor.clip value.lr value.clip
        model.state_std
        actor.init_std actor.min_std actor.mean_scale""",
    Rule(float, low=0, high=10**9, above=True): "worker.timeout",
    Rule(float, low=0, high=1, above=True): "objective.discount",
    Rule(float, low=0, high=1): "objective.lambda objective.confidence_clip",
    Rule(bool): "train.overlap env.shadows model.standardize objective.weight_value_loss",
    Rule(bool, nullable=True): "model.discount_head",
    Rule(str): "variant",  # one of the blocks of configs.yaml, which `load` checks
    Rule(str, nullable=True): "logdir env.camera",
    Rule(str, check=read_kwargs, nullable=True): "env.kwargs",
    Rule(str, check=check_task): "task",
    Rule(str, check=_check_loggers): "logger",
    Rule(str, choices=tuple(OBSERVATIONS)): "obs",
    Rule(int, low=16, high=128, multiple_of=16): "env.size",
    Rule(str, choices=("gaussian", "tanh")): "objective.entropy",
    Rule(str, choices=("relu", "elu")): "model.conv_act",
    Rule(str, choices=("auto", "float32", "bfloat16", "float16")): "precision",
    Rule(str, choices=("auto", "true", "false")): "xla",
}
RULES = {key: rule for rule, keys in _RULES.items() for key in keys.split()}

# What runs from before these settings lack, and whose null changes nothing.
NEWER = {"env.camera", "env.kwargs"}
# What a resumed run may change: how long it goes on, how hard it plans and what it leaves behind,
# not what it learns.
RESUMABLE = {
    *("steps", "logdir", "logger", "devices", "precision", "threads", "xla"),
    *("train.eval_every", "train.save_every", "train.keep", "train.max_skipped"),
    *("worker.timeout", "worker.restarts"),
    *("planner.horizon", "planner.iterations", "planner.candidates", "planner.elites"),
}


class Config(Mapping):
    """Frozen nested settings: ``config.model.lr``, or ``config.objective["lambda"]``."""

    def __init__(self, tree: Mapping):
        # Apart from the methods: a file of others may have a key of the same name.
        tree = {k: Config(v) if isinstance(v, Mapping) else v for k, v in tree.items()}
        vars(self)["_tree"] = tree

    def __getitem__(self, name: str) -> object:
        return self._tree[name]

    def __getattr__(self, name: str) -> object:
        try:
            return vars(self)["_tree"][name]
        except KeyError:
            raise AttributeError(f"no setting {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __setattr__(self, name: str, value: object = None) -> None:
        raise AttributeError(f"settings are frozen: {name} cannot change")

    __delattr__ = __setattr__

    def flatten(self) -> dict[str, object]:
        """Return all settings under dotted names, ``{"model.lr": 6e-4, ...}``."""
        return dict(_flatten(self))

    def replace(self, **values: object) -> "Config":
        """Return a copy with some of the outermost settings changed."""
        return Config({**self, **values})

    def save(self, path: Path | str) -> None:
        """Write the settings as YAML; a reader sees the old file or the new, never a part."""
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = yaml.sort_base_mapping_type_on_output = False
        with replacing(Path(path)) as file:
            yaml.dump(_nest(self.flatten()), file)

    @classmethod
    def read(cls, path: Path | str) -> "Config":
        """Read what `save` wrote, as it stands; ConfigError if it is missing or broken."""
        try:
            return cls(_read_yaml(Path(path)))
        except RecursionError:  # by an alias of YAML
            raise ConfigError(f"{path}: a mapping holds itself") from None


def load(
    flags: Mapping = {},
    presets: Sequence[str] = (),
    path: Path = CONFIG_FILE,
    known_task: bool = True,
) -> Config:
    """Resolve defaults < the variant's block < presets, left to right < flags (dotted names).

    Values of flags may be text. ConfigError names the first that is unknown or out of range, a task
    only if it is to be `known_task` here.
    """
    defaults, variants, known = _sections(path)
    chosen = {}
    for name in presets:
        if name in variants and name not in known:
            raise ConfigError(f"--configs {name}: is a variant: --variant {name}")
        if name not in known:
            raise ConfigError(f"--configs {name}: unknown; {nearest(name, known)}")
        chosen |= known[name]
    rules = RULES if known_task else RULES | {"task": Rule(str)}
    chosen |= (asked := _settings(flags, rules=rules))
    variant = chosen.get("variant", defaults["variant"])
    if variant not in variants:
        raise ConfigError(f"--variant {variant}: unknown; {nearest(variant, variants)}")
    values = defaults | variants[variant] | chosen | {"variant": variant}
    if default_time_limit(values["task"]) is None:  # a preset knows no limit of its own
        values["env.time_limit"] = asked.get("env.time_limit")
    values |= {key: value for key, value in _derived(values).items() if values[key] is None}
    values["logdir"] = os.path.expanduser(values["logdir"])
    _check_together(values)
    return Config(_nest(values))


def differences(saved: Config, new: Config) -> list[str]:
    """Return a line for each setting that forbids resuming ``saved`` as ``new``."""
    settings = saved.flatten(), new.flatten()
    old, new = ({key: show(value) for key, value in flat.items()} for flat in settings)
    return [
        f"{key}: saved {old.get(key, 'nothing')}, now {new.get(key, 'nothing')}"
        for key in old | new
        if key not in RESUMABLE
        and old.get(key, "null" * (key in NEWER)) != new.get(key, "null" * (key in NEWER))
    ]


def show(value: object) -> str:
    """Word a setting's value as one writes it in YAML."""
    words = {"None": "null", "True": "true", "False": "false", "": "(empty)"}
    return words.get(str(value), str(value))


def _sections(path: Path) -> tuple[dict, dict, dict]:
    """Return the checked defaults, variants by name and presets by name of configs.yaml."""
    tree = _read_yaml(path)
    if set(tree) != {"defaults", "variants", "presets"}:
        raise ConfigError(f"{path}: must hold defaults, variants and presets, not {list(tree)}")
    defaults = _settings(tree["defaults"], f"{path}, defaults: ")
    if missing := [key for key in RULES if key not in defaults]:
        raise ConfigError(f"{path}, defaults: missing {', '.join(missing)}")
    blocks = {"variants": {}, "presets": {}}
    for kind, found in blocks.items():
        for name, block in _mapping(tree[kind], f"{path}, {kind}: ").items():
            found[str(name)] = _settings(block, f"{path}, {kind}.{name}: ")
    return defaults, *blocks.values()


def _settings(tree: Mapping, where: str = "", rules: Mapping = RULES) -> dict[str, object]:
    """Return the dotted settings of one source, checked and in their types."""
    dashes = "" if where else "--"
    settings = {}
    for key, value in _flatten(_mapping(tree, where)):
        if key not in RULES:
            what = "key " if where else "flag --"
            raise ConfigError(f"{where}unknown {what}{key}: {nearest(key, RULES, dashes)}")
        try:
            settings[key] = rules[key].convert(value)
        except ValueError as error:
            raise ConfigError(f"{where}{dashes}{key} {show(value)}: {error}") from None
    return settings


def _derived(values: Mapping) -> dict[str, object]:
    """Return what follows from other settings where it is null."""
    task, limit = values["task"], values["env.time_limit"] or EPISODE
    repeat = values["env.action_repeat"] or default_action_repeat(task)
    folder = task.replace("/", "_").replace(":", "_")
    return {
        "env.action_repeat": repeat,
        "env.time_limit": default_time_limit(task),
        "model.discount_head": may_terminate(task),
        "train.every": max(repeat, limit // repeat * repeat),
        "logdir": f"logdir/{folder}/{values['variant']}/{values['seed']}",
    }


def _check_together(values: Mapping) -> None:
    repeat, limit = values["env.action_repeat"], values["env.time_limit"]
    length, devices, batch = values["replay.length"], values["devices"], values["replay.batch"]
    # The first frame comes before any action; an environment of others may have its own limit.
    frames = limit // repeat + 1 if limit else length
    if limit and repeat > limit:
        raise ConfigError(f"--env.action_repeat {repeat}: longer than --env.time_limit {limit}")
    if batch % devices:
        raise ConfigError(f"--devices {devices}: must divide --replay.batch {batch} evenly")
    if values["planner.elites"] > values["planner.candidates"]:
        few = f"--planner.candidates {values['planner.candidates']}"
        raise ConfigError(f"--planner.elites {values['planner.elites']}: at most {few}")
    if values["xla"] == "true" and devices > 1:
        raise ConfigError(f"--xla true: compiles updates of one device, not of --devices {devices}")
    if length > frames:
        raise ConfigError(f"--replay.length {length}: an episode has {frames} frames")
    for key in ("model.decode_steps", "objective.imagine_starts"):
        if values[key] is not None and values[key] > length:
            raise ConfigError(f"--{key} {values[key]}: a sequence has {length} steps")
    if values["env.camera"] is not None and not values["task"].startswith("dmc_"):
        raise ConfigError("--env.camera: of dmc_ tasks; others may take one by --env.kwargs")


def _read_yaml(path: Path) -> Mapping:
    try:
        tree = _parse_yaml(path.read_text(encoding="utf-8"))
    # The parser fails in many ways where a tag or a date is wrong, or lists nest too deep.
    except (OSError, YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "strerror", None)
        raise ConfigError(f"{path}{place}: {problem or str(error).splitlines()[0]}") from None
    return _mapping(tree, f"{path}: ")


@lru_cache(4)  # configs.yaml takes 40 ms, and each run of a sweep reads it; not to be changed
def _parse_yaml(text: str) -> object:
    return YAML(typ="safe", pure=True).load(text)


def _mapping(tree: object, where: str) -> Mapping:
    if not isinstance(tree, Mapping | None):
        raise ConfigError(f"{where}must be a mapping, not {show(tree)}")
    return tree or {}


def _flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nest(values: Mapping) -> dict:
    tree = {}
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = value
    return tree
