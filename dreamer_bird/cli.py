"""The command line: commands, flags and help; TensorFlow is imported when a run starts."""

import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module

from ruamel.yaml import YAML

from dreamer_bird.commands.arguments import parse_flags, program
from dreamer_bird.config import CONFIG_FILE, Config, load, show
from dreamer_bird.envs.tasks import GAMES, SUITE
from dreamer_bird.errors import ConfigError, RunError, nearest
from dreamer_bird.training.distributed.hosts import check_split, read_hosts
from dreamer_bird.training.logdir import check_logdir
from dreamer_bird.training.writers import check_loggers
from dreamer_bird.utils.streams import surviving_streams
from dreamer_bird.utils.tensorflow import quietly

# What the first word may select: the module in `commands`, and what it does.
COMMANDS = {
    "train": ("", "train, or resume the run in the logdir (the default)"),
    "bench": ("bench", "measure how fast this machine trains"),
    "doctor": ("doctor.examine", "tell whether training works here, or what to do"),
    "gpu-check": ("gpu_check.command", "tell whether the GPU works, and how fast it trains"),
    "evaluate": ("evaluate", "play episodes with a trained agent"),
    "export": ("export", "write a policy as a TensorFlow SavedModel"),
    "predict": ("predict", "draw open-loop predictions of runs side by side"),
    "import": ("import_dreamer", "make a run of the public Dreamer's weights"),
    "sweep": ("sweep.command", "train tasks x variants x seeds side by side"),
    "compare": ("compare", "tables of returns, of any number of logs"),
    "plot": ("plot", "curves of returns or any logged key"),
    "report": ("report", "one HTML page on any number of runs"),
}
# Settings that people change first.
FIRST = (
    *("task", "variant", "obs", "steps", "seed", "logdir", "envs", "precision"),
    *("env.action_repeat", "train.eval_every"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors the user can cause become one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with ExitStack() as stack:
        stack.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
        warnings.formatwarning = lambda message, *_, **__: f"{program()}: warning: {message}\n"
        stack.enter_context(surviving_streams())
        try:
            return _dispatch(arguments)
        except RunError as error:
            print(f"{program()}: {error}", file=sys.stderr)
            return error.exit_status
        except (OSError, MemoryError) as error:  # a full disk, say: nothing that code can mend
            print(f"{program()}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{program()}: interrupted", file=sys.stderr)
            return 130  # as shells report a process that was interrupted


def _dispatch(arguments: list[str]) -> int:
    if "--version" in arguments:
        from dreamer_bird import __version__

        print(f"dreamer-bird {__version__}")
        return 0
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "train"
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name}: {nearest(name, COMMANDS)}")
    if name == "train":
        return _train(arguments)
    if "" in arguments or any(word.startswith("--") and word[-1] == "=" for word in arguments):
        raise ConfigError("an argument is empty: is a variable of the shell not set?")
    status = import_module(f"dreamer_bird.commands.{COMMANDS[name][0]}").main(arguments)
    sys.stdout.flush()
    if sys.stdout.lost:  # a run can do without what it prints, a command cannot
        raise sys.stdout.lost
    return status


def _train(arguments: list[str]) -> int:
    if asked := {"-h", "--help", "--help-all"} & set(arguments):
        print("\n".join(_help(everything="--help-all" in asked)))
        return 0
    config, hosts = load(*parse_flags(arguments)), read_hosts(os.environ)
    check_split(config, hosts)
    playing = config.envs if hosts.is_chief else 0
    if hosts.is_chief:
        check_loggers(config)
        check_logdir(config)
    from dreamer_bird.training.driver import start_worker

    with ExitStack() as stack:
        # They start while TensorFlow is imported.
        names = *(f"train {number}" for number in range(1, playing + 1)), "evaluate"
        *envs, eval_env = (stack.enter_context(start_worker(config, name)) for name in names)
        # All are told to leave before any is waited for.
        stack.callback(lambda: [env.leave() for env in (*envs, eval_env)])
        with quietly():
            from dreamer_bird.training.train import train
        train(config, hosts, envs, eval_env)
    return 0


def explained() -> tuple[dict[str, tuple[str, str]], dict[str, str], dict[str, str]]:
    """Return settings with default and meaning, variants and presets, as configs.yaml tells."""
    load()  # refuses a file that is not as the code below expects it
    file = YAML().load(CONFIG_FILE)
    variants = {name: _said(block or {}) for name, block in file["variants"].items()}
    presets = {name: _above(file["presets"], name) for name in file["presets"] or ()}
    return dict(_settings(file["defaults"])), variants, presets


def _help(everything: bool) -> Iterator[str]:
    """Yield the lines of the help text."""
    settings, variants, presets = explained()
    yield f"example: {program()} --task dmc_walker_walk --configs cpu"
    yield f"\nusage: {program()} [COMMAND] [--configs PRESET ...] [--SETTING VALUE ...]"
    yield from _section("commands", {name: told for name, (_, told) in COMMANDS.items()})
    first = {name: text.partition(". ")[0].rstrip(".") for name, text in presets.items()}
    yield from _section("presets, --configs", first)
    groups = {"settings that are changed first": FIRST}
    if everything:
        yield from _section("variants, --variant", variants)
        yield from _section("tasks of dmc_, --task", {"": " ".join(SUITE)})
        yield from _section("games", {"": " ".join(f"atari_{game}" for game in GAMES)})
        groups = grouped(settings)
    for title, names in groups.items():
        rows = {f"--{name} {settings[name][0]}": settings[name][1] for name in names}
        yield from _section(title, rows)
    yield "\nA setting comes from its default, the variant, presets from left to right, then flags."
    if not everything:
        yield f"--help-all: the tasks and all {len(settings)} settings. COMMAND --help: its flags."


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Gather dotted names of settings by their group."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or "the run", []).append(name)
    return groups


def _section(title: str, rows: Mapping[str, str]) -> Iterator[str]:
    width = max(map(len, rows), default=0) + 2
    yield f"\n{title}:"
    for name, text in rows.items():
        yield textwrap.fill(
            text,
            width=100,
            initial_indent=f"  {name:{width}}",
            subsequent_indent=" " * (width + 2),
            break_on_hyphens=False,
        )


def _settings(group: Mapping, prefix: str = "") -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each dotted name with its default and the comment beside it."""
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            comment = group.ca.items[name][2].value if name in group.ca.items else ""
            yield prefix + name, (show(value), comment.partition("\n")[0].lstrip("# "))


def _above(group: Mapping, name: str) -> str:
    """Return the comment in the lines above a key."""
    first = group.ca.comment if name == next(iter(group)) else None
    tokens = (first or group.ca.items.get(name) or [None, None])[1] or []
    lines = (line.lstrip("# ") for token in tokens for line in token.value.split("\n"))
    return " ".join(line for line in lines if line)


def _said(block: Mapping) -> str:
    settings = Config(block).flatten().items()
    return ", ".join(f"{name} {show(value)}" for name, value in settings) or "the defaults"
