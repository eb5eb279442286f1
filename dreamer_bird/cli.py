"""The command line: commands, flags and help; TensorFlow is imported when a run starts."""

import os
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from ruamel.yaml import YAML

from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.config import CONFIG_FILE, Config, load
from dreamer_bird.envs import GAMES, SUITE
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; errors the user can cause become one line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"{_program()}: warning: {message}\n"
    try:
        with surviving_streams():
            return _run(arguments)
    finally:
        warnings.formatwarning = before


def _run(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except RunError as error:
        print(f"{_program()}: {error}", file=sys.stderr)
        return error.exit_status
    except (OSError, MemoryError) as error:  # a full disk, say: nothing that code can mend
        print(f"{_program()}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{_program()}: interrupted", file=sys.stderr)
        return 130  # as shells report a process that was interrupted


def _dispatch(arguments: list[str]) -> int:
    if "--version" in arguments:
        from dreamer_bird import __version__

        print(f"dreamer-bird {__version__}")
        return 0
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments.pop(0) if named else "train"
    if name not in COMMANDS:
        raise ConfigError(f"unknown command {name}: {nearest(name, COMMANDS)}")
    if name == "train":
        return _train(arguments)
    return import_module(f"dreamer_bird.commands.{COMMANDS[name][0]}").main(arguments)


def _train(arguments: list[str]) -> int:
    if "-h" in arguments or "--help" in arguments:
        print("\n".join(_help()))
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
        with quietly():
            from dreamer_bird.training.train import train
        train(config, hosts, envs, eval_env)
    return 0


def _program() -> str:
    return Path(sys.argv[0]).name


def _help() -> Iterator[str]:
    """Yield the lines of the help text, with what the comments in configs.yaml say."""
    load()  # refuses a file that is not as the code below expects it
    file = YAML().load(CONFIG_FILE)
    defaults, variants, presets = file["defaults"], file["variants"], file["presets"]
    yield f"usage: {_program()} [COMMAND] [--configs PRESET ...] [--SETTING VALUE ...]"
    yield from _section("commands", ((name, told) for name, (_, told) in COMMANDS.items()))
    yield from _section("presets, --configs", ((name, _above(presets, name)) for name in presets))
    yield from _section("variants, --variant", ((name, _said(variants[name])) for name in variants))
    games = " ".join(f"atari_{game}" for game in GAMES)
    tasks = (" ".join(SUITE), games, "gym_<EnvId>, <module>:<factory>: see docs/environments.md")
    yield from _section("tasks, --task", (("", names) for names in tasks))
    yield from _section("settings and their defaults", _settings(defaults, "--"))
    for group, settings in defaults.items():
        if isinstance(settings, Mapping):
            yield from _section(group, _settings(settings, f"--{group}."))
    yield "\nA setting comes from its default, the variant, presets from left to right, then flags."


def _section(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows) + 2
    yield f"\n{title}:"
    for name, text in rows:
        yield textwrap.fill(
            text,
            width=100,
            initial_indent=f"  {name:{width}}",
            subsequent_indent=" " * (width + 2),
            break_on_hyphens=False,
        )


def _settings(group: Mapping, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in group.items():
        if not isinstance(value, Mapping):
            comment = group.ca.items[name][2].value if name in group.ca.items else ""
            yield f"{prefix}{name} {_text(value)}", comment.partition("\n")[0].lstrip("# ")


def _above(group: Mapping, name: str) -> str:
    """Return the comment in the lines above a key."""
    first = group.ca.comment if name == next(iter(group)) else None
    tokens = (first or group.ca.items.get(name) or [None, None])[1] or []
    lines = (line.lstrip("# ") for token in tokens for line in token.value.split("\n"))
    return " ".join(line for line in lines if line)


def _said(block: Mapping) -> str:
    settings = Config(block).flatten().items()
    return ", ".join(f"{name} {_text(value)}" for name, value in settings) or "the defaults"


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower()
