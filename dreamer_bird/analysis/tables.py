"""Tables of a comparison for a terminal, at most 100 columns wide."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreamer_bird.analysis.logs import title

WIDTH = 100
_COLUMNS = 4  # of values with their deviations, that fit beside a method
_NONE = "-"  # for what does not exist


class _Part(NamedTuple):
    heading: str
    table: Table


def show(comparison: dict, console: Console) -> None:
    """Print a comparison as `comparison.compare_logs` returns it."""
    for task in comparison["tasks"]:
        console.print(Text(f"\n{task['task']}", style="bold"))
        _print(_values(task, comparison["key"] or "return"), console)
        if scores := ", ".join(map(_published, task["published"])):
            console.print(Text(f"published: {scores}", style="dim"))
        if task["scores"]:
            _print([_reach(task, comparison["against"])], console)
        _print(map(_difference, task["differences"]), console)
    methods = (method for task in comparison["tasks"] for method in task["methods"])
    for method, source in {m["method"]: m["source"] for m in methods if m["source"]}.items():
        console.print(Text(f"\n{title(method)}: {source}", style="dim"))
    if across := comparison["across"]:
        console.print(Text("\nacross tasks and seeds", style="bold"))
        if across["tasks"]:
            _print(_across(across), console)
        else:
            which = "DeepMind Control Suite on which every method has a return"
            console.print(f"no task of the {which} at the last step shown")
        if others := ", ".join(across["left_out"]):
            why = "returns of the DeepMind Control Suite alone are out of 1000"
            console.print(Text(f"left out: {others}: {why}", style="dim"))


def show_published(scores: Iterable[dict], console: Console) -> None:
    """Print published scores, each as the fields of `baselines.Score`."""
    table, sources = _table(["task", "method", "observes"], ["steps", "return"]), {}
    for score in scores:
        method = title(score["method"])
        numbers = steps(score["step"]), number(score["score"])
        table.add_row(score["task"], method, score["observation"], *numbers)
        sources[method] = "; ".join(filter(None, (score["source"], score["note"])))
    _print([_Part("published returns", table)], console)
    for method, source in sources.items():
        console.print(Text(f"{method}: {source}", style="dim"))


def number(value: float | None, beside: float = 0) -> str:
    """Write a number to about three digits, or as fine as the number beside it; - for none."""
    if value is None:
        return _NONE
    size = max(abs(value), abs(beside))
    if size and (size < 0.1 or size >= 1e7):
        return f"{value:.3g}"
    digits = 0 if not size or size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def steps(value: float | None) -> str:
    """Write a number of steps: 5,000, 250k, 1.05M."""
    if value is None:
        return _NONE
    if value < 10_000:
        return f"{value:,.0f}"
    return f"{value / 1e6:.4g}M" if value >= 1e6 else f"{value / 1e3:.4g}k"


def spread(value: dict) -> str:
    """Write mean, standard deviation and seeds, 612 ± 41 (5); no deviation for one seed."""
    mean, deviation = value["mean"], value["std"]
    if mean is None:
        return _NONE
    if value["seeds"] == 1 or deviation is None:
        return f"{number(mean)} ({value['seeds']})"
    # A deviation of two digits makes digits behind the point mean nothing.
    size = max(abs(mean), 10 * deviation)
    return f"{number(mean, beside=size)} ± {number(deviation, beside=size)} ({value['seeds']})"


def _values(task: dict, what: str) -> Iterator[_Part]:
    """Yield the values at steps, in tables narrow enough; the last one with the areas."""
    first, last = map(steps, task["range"])
    heading = f"{what} at environment steps: mean ± standard deviation (seeds)"
    heading += f"; area: mean from {first} to {last}"
    for start in range(0, len(task["at"]), _COLUMNS):
        shown = slice(start, start + _COLUMNS)
        ends = start + _COLUMNS >= len(task["at"])
        columns = [steps(step) for step in task["at"][shown]] + ["area"] * ends
        table = _table(["method"], columns)
        for method in task["methods"]:
            values = method["values"][shown] + [method["area"]] * ends
            table.add_row(title(method["method"]), *map(spread, values))
        yield _Part(heading, table)


def _reach(task: dict, against: str | None) -> _Part:
    heading = "steps in which the mean curve reaches a score (seeds that reach it)"
    if against:
        heading += f"; x2: half those of {title(against)}"
    columns = [
        f"{number(score)} (final)" if score == task["final"] else f"{score:,g}"
        for score in task["scores"]
    ]
    table = _table(["method"], columns)
    for method in task["methods"]:
        table.add_row(title(method["method"]), *(_reached(r, method) for r in method["reach"]))
    return _Part(heading, table)


def _reached(reach: dict, method: dict) -> str:
    rounded = reach["steps"] and float(f"{reach['steps']:.3g}")
    ratio = "" if reach["ratio"] is None else f" x{reach['ratio']:.2f}"
    seeds = "" if reach["seeds"] is None else f" ({reach['seeds']}/{method['seeds']})"
    return steps(rounded) + ratio + seeds


def _difference(difference: dict) -> _Part:
    heading = "training metrics: mean over the last quarter, and the step at which they part"
    table = _table(["metric"], [title(difference["first"]), title(difference["second"]), "part at"])
    for metric in difference["metrics"]:
        ends = (f"{metric[side]:,.6g}" for side in ("first", "second"))
        table.add_row(metric["key"], *ends, steps(metric["step"]))
    return _Part(heading, table)


def _across(across: dict) -> Iterator[_Part]:
    """Yield the interquartile means, then the probabilities of improvement."""
    count = f"{len(across['tasks'])} task{'s' * (len(across['tasks']) > 1)}"
    table = _table(["method"], ["runs a task", "interquartile mean"])
    for row in across["methods"]:
        table.add_row(title(row["method"]), str(row["runs"]), _interval(row, "iqm"))
    yield _Part(f"return / 1000 at the last step shown of {count}, 95% interval (rliable)", table)
    if across["improvement"]:
        table = _table(["a run of", "beats one of"], ["with probability"])
        for row in across["improvement"]:
            table.add_row(title(row["method"]), title(row["other"]), _interval(row, "probability"))
        yield _Part("probability of improvement, 95% interval (rliable)", table)


def _interval(row: dict, key: str) -> str:
    if row["low"] is None:
        return f"{row[key]:.3f} (one run: no interval)"
    return f"{row[key]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _published(score: dict) -> str:
    where = f"{score['observation']}, {steps(score['step'])}"
    return f"{title(score['method'])} {number(score['score'])} ({where})"


def _table(texts: list[str], numbers: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for text in texts:
        table.add_column(text)
    for text in numbers:
        table.add_column(text, justify="right")
    return table


def _print(parts: Iterable[_Part], console: Console) -> None:
    for heading, table in parts:
        console.print(Text(f"\n{heading}", style="dim"))
        console.print(table)
