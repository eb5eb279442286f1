"""One self-contained HTML page on any number of runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dreamer_bird.analysis import panels, style
from dreamer_bird.analysis.artifacts import find_videos, settings_table
from dreamer_bird.analysis.baselines import published_curves, published_scores
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import aggregate, bands
from dreamer_bird.analysis.summary import Question, compare_logs
from dreamer_bird.analysis.tables import Part, comparison_parts

CONFIDENCE = ("confidence_mean", "confidence_min", "confidence_max")


class Section(NamedTuple):
    """A heading, what it shows, and a panel for each task."""

    anchor: str
    title: str
    text: str
    panels: list[panels.Panel]
    notes: list[str] = []  # noqa: RUF012


def render(logs: Sequence[Log], baselines: bool) -> str:
    """Return the page; with `baselines` published results are drawn behind the returns."""
    logs = sorted(logs, key=lambda log: (log.task, log.method, log.seed))
    looks = style.styles(log.method for log in logs)
    sections = list(_sections(logs, looks, baselines))
    videos, left_out = find_videos(logs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.jinja").render(
        title=f"Runs on {_some([style.task_title(name) for name in _tasks(logs)], 'tasks')}",
        summary=f"{len(logs)} runs of {_some(list(map(style.title, looks)), 'methods')}",
        switches=list(_switches(logs, looks, baselines)),
        sections=sections,
        parts=_compared(logs, baselines),
        videos=videos,
        left_out=left_out,
        settings=settings_table(logs),
        paths=[log.path for log in logs],
        plotly=Markup(get_plotlyjs()),  # the one thing that is not escaped
    )


def _some(names: list[str], kind: str) -> str:
    return f"{len(names)} {kind}" if len(names) > 4 else ", ".join(names)


def _tasks(logs: Sequence[Log]) -> list[str]:
    return sorted({log.task for log in logs})


def _switches(
    logs: Sequence[Log], looks: dict[str, style.Style], baselines: bool
) -> Iterator[panels.Switch]:
    for method, look in looks.items():
        yield panels.Switch(panels.method_group(method), style.title(method), look, 2)
    if baselines:
        scores = [score for task in _tasks(logs) for score in published_scores(task)]
        for label, score in {style.score_label(score): score for score in scores}.items():
            look = style.published_style(score.method)
            yield panels.Switch(panels.published_group(label), label, look, 1.3)
        curves = [curve for task in _tasks(logs) for curve in published_curves(task)]
        for label in {style.curve_label(curve): None for curve in curves}:
            look = style.PUBLISHED_CURVE
            yield panels.Switch(panels.published_group(label), label, look, 9)


def _sections(
    logs: Sequence[Log], looks: dict[str, style.Style], baselines: bool
) -> Iterator[Section]:
    spread = "Means over seeds, and a standard deviation around them"
    runs = [log for log in logs if log.return_key in log.curves]
    if runs:
        yield Section(
            "returns",
            "Returns",
            f"{spread}. Of evaluation episodes, or of training where a log has no others.",
            list(_panels(bands(runs, None, "std"), looks, "return", baselines)),
            _notes(_tasks(runs)) if baselines else [],
        )
    runs = [log for log in logs if "model_error" in log.curves]
    if runs:
        yield Section(
            "model-error",
            "Model error",
            f"Distance of latent states predicted open-loop from those inferred. {spread}.",
            list(_panels(bands(runs, "model_error", "std"), looks, "model error")),
        )
    runs = [log for log in logs if log.curves.keys() >= set(CONFIDENCE)]
    if runs:
        yield Section(
            "confidence",
            "Confidence weights",
            "Weights of the imagined rollouts in a batch: the mean, between the least and the "
            "greatest; means over seeds.",
            list(_panels(_confidence(runs), looks, "confidence weight")),
        )


def _confidence(logs: Sequence[Log]) -> pd.DataFrame:
    mean, low, high = (aggregate(logs, key) for key in CONFIDENCE)
    ends = low.merge(high, on=["task", "method", "step"], suffixes=("_low", "_high"))
    table = mean.merge(ends, on=["task", "method", "step"])
    return table.assign(low=table["mean_low"], high=table["mean_high"])


def _panels(
    table: pd.DataFrame, looks: dict[str, style.Style], what: str, baselines: bool = False
) -> Iterator[panels.Panel]:
    for task, rows in table.groupby("task"):
        steps = sorted(set(rows["at"].tolist()))
        methods = [method for method in looks if (rows["method"] == method).any()]
        traces = []
        if baselines:
            traces += [panels.published_trace(curve, steps[-1]) for curve in published_curves(task)]
            traces += panels.score_traces(published_scores(task), steps)
        for method in methods:
            traces += panels.method_traces(rows, method, looks[method])
        names = ", ".join(map(style.title, methods))
        alt = f"Curves of the {what} on {style.task_title(task)} against environment steps: {names}"
        yield panels.Panel(style.task_title(task), alt, traces)


def _compared(logs: Sequence[Log], baselines: bool) -> list[Part]:
    """Return what `compare` tells of the logs that have returns."""
    runs = [log for log in logs if log.return_key in log.curves]
    if not runs:
        return []
    return list(comparison_parts(compare_logs(runs, Question(baselines=baselines))))


def _notes(tasks: Sequence[str]) -> list[str]:
    """Return where the published results on tasks come from, in a line each."""
    origins = [
        (label(result), result.source, result.note)
        for task in tasks
        for label, results in (
            (style.score_label, published_scores(task)),
            (style.curve_label, published_curves(task)),
        )
        for result in results
    ]
    return [": ".join(filter(None, origin)) for origin in dict.fromkeys(origins)]
