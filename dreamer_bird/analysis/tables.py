"""The parts of a comparison in words and tables: a terminal prints them, a page shows them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dreamer_bird.analysis.logs import title
from dreamer_bird.analysis.style import step_label

WIDTH = 100  # columns that all tables fit into
_COLUMNS = 3  # of values at steps, that fit beside a method and its two means
_NONE = "-"  # for what does not exist


class Part(NamedTuple):
    """A heading, a note, the source of published results, or a table below its caption."""

    kind: Literal["heading", "note", "source", "table"]
    text: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    texts: int = 1  # the first so many columns hold words, the others numbers


def show(parts: Iterable[Part], console: Console) -> None:
    """Print parts; all but notes have a blank line above."""
    for part in parts:
        above = "" if part.kind == "note" else "\n"
        style = "bold" if part.kind == "heading" else "dim"
        console.print(Text(above + part.text, style=style))
        if part.kind == "table":
            table = Table(box=box.SIMPLE_HEAD, show_edge=False)
            for number, name in enumerate(part.columns):
                table.add_column(name, justify="left" if number < part.texts else "right")
            for row in part.rows:
                table.add_row(*row)
            console.print(table)


def comparison_parts(comparison: dict) -> Iterator[Part]:
    """Yield the parts of a comparison as `summary.compare_logs` returns it."""
    for task in comparison["tasks"]:
        yield Part("heading", task["task"])
        yield from _values(task, comparison["key"] or "return")
        if scores := ", ".join(map(_published, task["published"])):
            yield Part("note", f"published: {scores}")
        if task["scores"]:
            yield _reach(task, comparison["against"])
        yield from map(_difference, task["differences"])
    methods = (method for task in comparison["tasks"] for method in task["methods"])
    for method, source in {m["method"]: m["source"] for m in methods if m["source"]}.items():
        yield Part("source", f"{title(method)}: {source}")
    if comparison["across"]:
        yield from _across(comparison["across"])


def published_parts(scores: Iterable[dict]) -> Iterator[Part]:
    """Yield the parts of published scores, each as the fields of `baselines.Score`."""
    rows, sources = [], {}
    for score in scores:
        method = title(score["method"])
        numbers = steps(score["step"]), number(score["score"])
        rows.append((score["task"], method, score["observation"], *numbers))
        sources[method] = "; ".join(filter(None, (score["source"], score["note"])))
    columns = ("task", "method", "observes", "steps", "return")
    yield Part("table", "published returns", columns, rows, texts=3)
    for method, source in sources.items():
        yield Part("note", f"{method}: {source}")


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
    """Write a number of steps: 500, 250k, 1.05M; - for none."""
    return _NONE if value is None else step_label(value)


def spread(value: dict) -> str:
    """Write mean, standard deviation and seeds, 612 ± 41 (5); no deviation for one seed.

    Nor is there one between the points of a published curve, ~612 (5).
    """
    mean, deviation = value["mean"], value["std"]
    if mean is None:
        return _NONE
    if deviation is None:
        about = "~" if value["seeds"] > 1 else ""
        return f"{about}{number(mean)} ({value['seeds']})"
    # A deviation of two digits makes digits behind the point mean nothing.
    size = max(abs(mean), 10 * deviation)
    return f"{number(mean, beside=size)} ± {number(deviation, beside=size)} ({value['seeds']})"


def _values(task: dict, what: str) -> Iterator[Part]:
    """Yield the values at steps, the final ones and the areas, in tables narrow enough."""
    first, last, late, end = map(steps, task["range"] + task["late"])
    heading = f"{what} at environment steps: mean ± deviation (seeds)"
    heading += f"; final: {late} to {end}; area: {first} to {last}"
    for start in range(0, len(task["at"]), _COLUMNS):
        shown = slice(start, start + _COLUMNS)
        means = ["final", "area"] if start + _COLUMNS >= len(task["at"]) else []
        rows = []
        for method in task["methods"]:
            values = method["values"][shown] + [method[name] for name in means]
            rows.append((title(method["method"]), *map(spread, values)))
        columns = ["method", *map(steps, task["at"][shown]), *means]
        yield Part("table", heading, columns, rows)


def _reach(task: dict, against: str | None) -> Part:
    heading = "steps in which the mean curve reaches a score"
    heading += f" (seeds that do by {steps(task['range'][1])})"
    if against:
        heading += f"; x2: half those of {title(against)}"
    columns = [
        f"{number(score)} (final)" if score == task["final"] else f"{score:,g}"
        for score in task["scores"]
    ]
    rows = [
        (title(method["method"]), *(_reached(reach, method) for reach in method["reach"]))
        for method in task["methods"]
    ]
    return Part("table", heading, ["method", *columns], rows)


def _reached(reach: dict, method: dict) -> str:
    rounded = reach["steps"] and float(f"{reach['steps']:.3g}")
    at_most = "<=" if reach["at_most"] else ""
    ratio = "" if reach["ratio"] is None else f" x{reach['ratio']:.2f}"
    seeds = "" if reach["seeds"] is None else f" ({reach['seeds']}/{method['seeds']})"
    return at_most + steps(rounded) + ratio + seeds


def _difference(difference: dict) -> Part:
    sides = [title(difference[side]) for side in ("first", "second")]
    parted = [metric for metric in difference["metrics"] if metric["step"] is not None]
    if not parted:
        return Part("note", f"training metrics of {' and '.join(sides)}: none parts for good")
    heading = "training metrics that part, and at which step; means over the last quarter"
    rows = []
    for metric in parted:
        ends = (f"{metric[side]:,.6g}" for side in ("first", "second"))
        rows.append((metric["key"], *ends, steps(metric["step"])))
    return Part("table", heading, ["metric", *sides, "part at"], rows)


def _across(across: dict) -> Iterator[Part]:
    """Yield the interquartile means, then the probabilities of improvement."""
    yield Part("heading", "across tasks and seeds")
    if across["tasks"]:
        count = f"{len(across['tasks'])} task{'s' * (len(across['tasks']) > 1)}"
        heading = f"final return / 1000 of {count}, 95% interval (rliable)"
        rows = [
            (title(row["method"]), _runs(row), _interval(row, "iqm")) for row in across["methods"]
        ]
        yield Part("table", heading, ["method", "runs a task", "interquartile mean"], rows)
    else:
        which = "DeepMind Control Suite on which every method has a final return"
        yield Part("note", f"no task of the {which}")
    if across["improvement"]:
        heading = "probability of a higher final return, 95% interval (rliable)"
        rows = [
            (title(row["method"]), title(row["other"]), _interval(row, "probability"))
            for row in across["improvement"]
        ]
        yield Part("table", heading, ["a run of", "beats one of", "with probability"], rows, 2)
    if across["tasks"] and (lacking := ", ".join(across["lacking"])):
        yield Part("note", f"left out: {lacking}: not every method has a final return there")
    if others := ", ".join(across["left_out"]):
        why = "returns of the DeepMind Control Suite alone are out of 1000"
        yield Part("note", f"left out: {others}: {why}")


def _runs(row: dict) -> str:
    least, most = row["least"], row["most"]
    return f"{most}" if least == most else f"{least} to {most}"


def _interval(row: dict, key: str) -> str:
    if row["low"] is None:
        return f"{row[key]:.3f} (one run: no interval)"
    return f"{row[key]:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _published(score: dict) -> str:
    where = f"{score['observation']}, {steps(score['step'])}"
    return f"{title(score['method'])} {number(score['score'])} ({where})"
