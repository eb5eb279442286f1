"""The command `compare`: tables of returns, or of any logged key, of any number of logs."""

import argparse
import json
import math

from rich.console import Console

from dreamer_bird.analysis.baselines import is_baselines, published_scores
from dreamer_bird.analysis.logs import having, read_logs
from dreamer_bird.analysis.summary import Question, compare_logs
from dreamer_bird.analysis.tables import WIDTH, comparison_parts, published_parts, show
from dreamer_bird.commands.arguments import Parser, add_logs
from dreamer_bird.errors import ConfigError


def main(arguments: list[str]) -> int:
    """Print the comparison that the command line asks for."""
    flags = _parse(arguments)
    console = Console(width=None if Console().is_terminal else WIDTH, highlight=False, markup=False)
    if all(map(is_baselines, flags.paths)):
        if flags.at or flags.scores or flags.against or flags.key:
            raise ConfigError("--at, --scores, --against, --key: of logs, not of baselines alone")
        scores = [score._asdict() for score in published_scores()]
        if flags.json:
            print(json.dumps({"published": scores}))
        else:
            show(published_parts(scores), console)
        return 0
    logs = having(read_logs(flags.paths, flags.returns), flags.key)
    question = Question(
        at=flags.at,
        scores=flags.scores,
        against=flags.against,
        key=flags.key,
        baselines=not flags.no_baselines,
    )
    comparison = compare_logs(logs, question)
    if flags.json:
        print(json.dumps(comparison, allow_nan=False))
    else:
        show(comparison_parts(comparison), console)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "compare",
        "Print tables of returns, or of any logged key, of logs.",
        "logdir --against dreamer",
    )
    add_logs(parser, " or baselines")
    at = "environment steps, as 1e5,5e5,1e6; `final` is of their last fifth"
    parser.add_argument("--at", type=_steps, default=(), help=at)
    parser.add_argument(
        "--scores", type=_numbers, default=(), help="scores to reach from below, as 500,800"
    )
    parser.add_argument("--against", metavar="METHOD", help="the method to compare others with")
    parser.add_argument("--key", help="the logged key to compare instead of returns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse(arguments)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(word) for word in text.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text}: must be numbers with commas between them")
    return numbers


def _steps(text: str) -> tuple[int, ...]:
    numbers = _numbers(text)
    if any(number != int(number) or not 1 <= number < 2**53 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text}: steps must be whole numbers from 1 to 2**53")
    return tuple(sorted({int(number) for number in numbers}))
