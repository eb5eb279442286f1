"""The command `plot`: curves of returns, or of any logged key, for a paper."""

import argparse

from dreamer_bird.analysis.figures import FORMATS, write_figure
from dreamer_bird.analysis.logs import having, read_logs, warn_of_training
from dreamer_bird.analysis.statistics import bands
from dreamer_bird.commands.arguments import Parser, add_logs, as_path, make_folder
from dreamer_bird.errors import nearest


def main(arguments: list[str]) -> int:
    """Draw the figure that the command line asks for and print the paths of its files."""
    flags = _parse(arguments)
    logs = having(read_logs(flags.paths, flags.returns), flags.key)
    if flags.key is None:
        warn_of_training(logs)
    table = bands(logs, flags.key, flags.band)
    make_folder("--outdir", flags.outdir)
    shown = not flags.no_baselines
    print(*write_figure(table, flags.key, shown, flags.outdir, flags.format), sep="\n")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "plot",
        "Draw curves of returns or of any logged key, a panel for each task.",
        "logdir --outdir figures",
    )
    add = parser.add_argument
    add_logs(parser)
    add("--outdir", type=as_path, required=True, help="folder for the figure, made where needed")
    add("--key", help="logged key to draw; without it, returns")
    add(
        "--band",
        choices=("std", "ci"),
        default="std",
        help="shade: deviation or 95%% interval of the mean",
    )
    add("--format", type=_formats, default=("png", "pdf"), help="one or more of png,pdf,svg")
    return parser.parse(arguments)


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in FORMATS:
            raise argparse.ArgumentTypeError(f"{name}: {nearest(name, FORMATS)}")
    return names
