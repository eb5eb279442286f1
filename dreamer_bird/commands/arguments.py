"""Flags: those of training come from configs.yaml, those of other commands from their parsers."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from dreamer_bird.config import RULES, Config, Rule
from dreamer_bird.envs.custom import FACTORIES
from dreamer_bird.errors import ConfigError, nearest
from dreamer_bird.utils.files import check_writable


def called() -> list[str]:
    """Return the words by which this program is called again."""
    module = Path(sys.argv[0]).name == "__main__.py"
    return [sys.executable, *(["-m", "dreamer_bird"] if module else [sys.argv[0]])]


def program() -> str:
    """Return what the program is called in messages and examples."""
    name = Path(sys.argv[0]).name
    return "python -m dreamer_bird" if name == "__main__.py" else name


class Parser(argparse.ArgumentParser):
    """The standard parser, with the program's way to refuse: one line, and the valid choices."""

    def __init__(self, command: str, description: str, example: str):
        """Take the name of the command, one sentence on what it does, and flags to begin with."""
        self._example = f"example: {program()} {command} {example}"
        super().__init__(prog=f"{program()} {command}", description=description, allow_abbrev=False)

    def format_help(self) -> str:
        """Return the help, the example first."""
        return f"{self._example}\n\n{super().format_help()}"

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Return the values; ConfigError names a flag or word that cannot be used."""
        values, unknown = self.parse_known_intermixed_args(arguments)
        for word in unknown:
            self._check_flag(word)
            raise ConfigError(f"unexpected {word}: flags are written --name value")
        return values

    def parse_beside_settings(self, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """Return the values, and the words that are presets and settings of training.

        ConfigError names a flag that is neither.
        """
        values, settings = self.parse_known_args(arguments)
        for word in settings:
            self._check_flag(word, (*RULES, "configs"))
        return values, settings

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        if message.startswith("argument "):  # "argument --at: x: what is wrong"
            message = message.removeprefix("argument ").replace(": ", " ", 1)
        raise ConfigError(message)

    def _check_flag(self, word: str, others: Sequence[str] = ()) -> None:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag[2:] not in others:
            own = [name[2:] for name in self._option_string_actions if name.startswith("--")]
            raise ConfigError(f"unknown flag {flag}: {nearest(flag[2:], (*own, *others), '--')}")


def add_logs(parser: Parser, more: str = "") -> None:
    """Add what `compare`, `plot` and `report` take alike: logs, and what is known of returns."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="[NAME=]PATH",
        help=f"logdirs, folders of them, log or score files{more}; NAME is the method they get",
    )
    parser.add_argument(
        "--returns",
        type=lambda text: text.split(","),
        default=(),
        metavar="KEY,...",
        help="what other programs' logs call returns, where that is not known",
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave out published returns")


def whole(low: int, high: float = RULES["seed"].high) -> Callable[[str], int]:
    """Return the type of a flag that takes whole numbers from `low` to `high`."""

    def convert(text: str) -> int:
        try:
            return Rule(int, low, high).convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return convert


def as_path(text: str) -> Path:
    """Return the path that a flag names, ~ included: shells leave the one of --out=~/x alone."""
    return Path(os.path.expanduser(text))  # which leaves ~nosuch as it is


def check_importable(config: Config) -> None:
    """Raise ConfigError for a task that other processes do not know, as it was registered here."""
    if config.task in FACTORIES:
        told = "other processes do not know a name that was registered: use <module>:<factory>"
        raise ConfigError(f"--task {config.task}: {told}")


def check_output(flag: str, path: Path, suffixes: Sequence[str]) -> None:
    """Raise ConfigError for a file of another kind or where none can be written; make nothing."""
    if path.suffix not in suffixes:
        raise ConfigError(f"{flag} {path}: must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder")
    # Folders that are missing are made when there is something to write.
    check_writable(f"{flag} {path}", path.parent)


def make_folder(flag: str, path: Path) -> None:
    """Make a folder where there is none yet; ConfigError where that, or a file in it, cannot be."""
    check_writable(f"{flag} {path}", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # a name that is too long, say
        raise ConfigError(f"{flag} {path}: {error.strerror}") from None


def parse_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Split ``--name value``, ``--name=value`` and ``--configs a b`` into flags and presets.

    ConfigError names a flag that does not exist or that lacks its value.
    """
    flags, presets, words = {}, [], list(arguments)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        name = flag.lstrip("-")
        if not flag.startswith("-"):
            raise ConfigError(f"unexpected {flag}: flags are written --name value")
        if flag != f"--{name}" or name not in (*RULES, "configs"):
            known = (*RULES, "configs", "help", "help-all", "version")
            raise ConfigError(f"unknown flag {flag}: {nearest(name, known, '--')}")
        values = [value] if equals else []
        while words and not words[0].startswith("--") and (name == "configs" or not values):
            values.append(words.pop(0))
        if not values:
            raise ConfigError(f"--{name}: needs a value")
        if name == "configs":
            presets += ",".join(values).split(",")
        else:
            flags[name] = values[0]
    return flags, presets
