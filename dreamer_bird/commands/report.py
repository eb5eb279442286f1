"""The command `report`: one HTML page on any number of runs."""

import argparse

from dreamer_bird.analysis.logs import read_logs
from dreamer_bird.analysis.page import render
from dreamer_bird.commands.arguments import Parser, add_logs, as_path, make_folder
from dreamer_bird.utils.files import replacing

FILE = "index.html"


def main(arguments: list[str]) -> int:
    """Write the page that the command line asks for and print its path."""
    flags = _parse(arguments)
    logs = read_logs(flags.paths, flags.returns)
    page = render(logs, baselines=not flags.no_baselines)
    make_folder("--out", flags.out)
    with replacing(flags.out / FILE) as file:
        file.write(page.encode(errors="replace"))  # a path may be of any bytes
    print(flags.out / FILE)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "report",
        "Write one HTML page on any number of runs, to be opened offline.",
        "logdir --out page",
    )
    add_logs(parser)
    told = f"folder for {FILE}, made where needed"
    parser.add_argument("--out", type=as_path, required=True, help=told)
    return parser.parse(arguments)
