"""Flags of the commands that read runs; those of training come from configs.yaml."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from dreamer_bird.errors import ConfigError, nearest


class Parser(argparse.ArgumentParser):
    """The standard parser, with the program's way to refuse: one line, and the valid choices."""

    def __init__(self, command: str, description: str):
        """Take the name of the command and one sentence on what it does."""
        program = f"{Path(sys.argv[0]).name} {command}"
        super().__init__(prog=program, description=description, allow_abbrev=False)

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Return the values; ConfigError names a flag or word that cannot be used."""
        values, unknown = self.parse_known_args(arguments)
        for word in unknown:
            flag = word.partition("=")[0]
            if flag.startswith("--"):
                raise ConfigError(f"unknown flag {flag}: {nearest(flag[2:], self._names(), '--')}")
            raise ConfigError(f"unexpected {word}: flags are written --name value")
        return values

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        argument, prefix, rest = message.rpartition("argument ")
        if not argument and prefix:  # "argument --at: x: what is wrong", as argparse words it
            message = rest.replace(": ", " ", 1)
        raise ConfigError(message)

    def _names(self) -> list[str]:
        return [
            name[2:] for action in self._actions for name in action.option_strings if "--" in name
        ]
