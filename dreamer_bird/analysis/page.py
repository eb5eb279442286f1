"""One self-contained HTML page on any number of runs."""

import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dreamer_bird.analysis import style
from dreamer_bird.analysis.artifacts import find_videos, settings_table
from dreamer_bird.analysis.baselines import published_curves, published_scores
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import bands
from dreamer_bird.analysis.summary import Question, compare_logs
from dreamer_bird.analysis.tables import comparison_parts

_BAND = "2E"  # opacity of a shaded area, as the last two digits of a colour
_SPREAD = "Means over seeds, and a standard deviation around them."
# Key, None for returns, anchor and title of a section, what its curves are, and its text.
_SECTIONS = (
    (
        None,
        "returns",
        "Returns",
        "return",
        f"{_SPREAD} Of evaluation episodes, or of training where a log has no others.",
    ),
    (
        "model_error",
        "model-error",
        "Model error",
        "model error",
        f"Distance of latent states predicted open-loop from those inferred. {_SPREAD}",
    ),
    (
        "confidence_correlation",
        "confidence",
        "Confidence",
        "confidence correlation",
        "Rank correlation of the confidence in a prediction with its error: below 0 the model "
        f"errs less where it is confident. {_SPREAD}",
    ),
)


def render(logs: Sequence[Log], baselines: bool) -> str:
    """Return the page; with `baselines` published results are drawn behind the returns."""
    logs = sorted(logs, key=lambda log: (log.task, log.method, log.seed))
    looks = style.styles(log.method for log in logs)
    tasks = sorted({log.task for log in logs})
    runs = [log for log in logs if log.return_key in log.curves]
    compared = compare_logs(runs, Question(baselines=baselines)) if runs else None
    videos, left_out = find_videos(logs)
    text = Path(__file__).with_name("report.html.jinja").read_text()
    template = jinja2.Template(text, autoescape=True, undefined=jinja2.StrictUndefined)
    return template.render(
        title=f"Runs on {_some(list(map(style.task_title, tasks)), 'tasks')}",
        summary=f"{len(logs)} runs of {_some(list(map(style.title, looks)), 'methods')}",
        switches=list(_switches(tasks, looks, baselines)),
        sections=list(_sections(logs, looks, baselines)),
        parts=list(comparison_parts(compared)) if compared else [],
        videos=videos,
        left_out=left_out,
        settings=settings_table(logs),
        paths=[log.path for log in logs],
        plotly=Markup(get_plotlyjs()),  # the one thing that is not escaped
    )


def _some(names: list[str], kind: str) -> str:
    return f"{len(names)} {kind}" if len(names) > 4 else ", ".join(names)


def _switches(
    tasks: Sequence[str], looks: dict[str, style.Style], baselines: bool
) -> Iterator[dict]:
    """Yield what shows or hides a method, or a published result, in all panels of the page."""
    for method, look in looks.items():
        yield {"group": f"run {method}", "label": style.title(method), "look": look, "width": 2}
    tasks = tasks if baselines else ()
    scores = {style.score_label(s): s for task in tasks for s in published_scores(task)}
    curves = [style.curve_label(c) for task in tasks for c in published_curves(task)]
    published = [(label, style.published_style(s.method), 1.3) for label, s in scores.items()]
    published += [(label, style.PUBLISHED_CURVE, 9) for label in dict.fromkeys(curves)]
    for label, look, width in published:
        yield {"group": f"published {label}", "label": label, "look": look, "width": width}


def _sections(
    logs: Sequence[Log], looks: dict[str, style.Style], baselines: bool
) -> Iterator[dict]:
    """Yield the heading and text of each section that has logs, and a panel for each task."""
    for key, anchor, title, what, text in _SECTIONS:
        runs = [log for log in logs if (key or log.return_key) in log.curves]
        if runs:
            published = baselines and key is None
            panels = list(_panels(bands(runs, key, "std"), looks, what, published))
            notes = _notes(sorted({log.task for log in runs})) if published else []
            told = {"anchor": anchor, "title": title, "text": text}
            yield told | {"panels": panels, "notes": notes}


def _panels(
    table: pd.DataFrame, looks: dict[str, style.Style], what: str, baselines: bool
) -> Iterator[dict]:
    """Yield a task's curves, as the traces that plotly.js draws."""
    for task, rows in table.groupby("task"):
        steps = sorted(set(rows["at"].tolist()))
        traces = list(_published_traces(task, steps)) if baselines else []
        methods = [method for method in looks if (rows["method"] == method).any()]
        for method in methods:
            traces += _method_traces(rows[rows["method"] == method], method, looks[method])
        names = ", ".join(map(style.title, methods))
        alt = f"Curves of the {what} on {style.task_title(task)} against environment steps: {names}"
        yield {"title": style.task_title(task), "alt": alt, "traces": traces}


def _method_traces(rows: pd.DataFrame, method: str, look: style.Style) -> list[dict]:
    """Return a method's shaded area and line on a task."""
    line = {
        "x": rows["at"].tolist(),
        "y": rows["mean"].tolist(),
        "customdata": list(map(style.spread_label, rows["std"], rows["seeds"])),
        # plotly.js takes a few HTML tags in texts; a name that holds some is shown as it is.
        "name": html.escape(style.title(method)),
        "legendgroup": f"run {method}",
        "mode": "lines" if len(rows) > 1 else "markers",
        "line": {"color": look.colour, "dash": look.strokes, "width": 2},
        "hovertemplate": "%{y:.4~g}%{customdata}",
    }
    shaded = rows[rows["seeds"] > 1]
    ends = shaded["low"], shaded["high"]
    return [_area(shaded["at"], *ends, look.colour, f"run {method}"), line]


def _published_traces(task: str, steps: list[float]) -> Iterator[dict]:
    """Yield the areas of published curves, then lines of scores with a tooltip at each step."""
    for curve in published_curves(task):
        step, mean, std = curve.until(steps[-1])
        group = f"published {style.curve_label(curve)}"
        yield _area(step, mean - std, mean + std, style.PUBLISHED_CURVE.colour, group)
    for score in published_scores(task):
        look, label = style.published_style(score.method), style.score_label(score)
        yield {
            "x": [0, *steps],
            "y": [score.score] * (len(steps) + 1),
            "name": html.escape(label),
            "legendgroup": f"published {label}",
            "mode": "lines",
            "line": {"color": look.colour, "dash": look.strokes, "width": 1.3},
            "hovertemplate": "%{y:.4~g}",
        }


def _area(step: Iterable, low: Iterable, high: Iterable, colour: str, group: str) -> dict:
    """Return the area between two curves, a standard deviation on either side of a mean."""
    step, low, high = (list(map(float, values)) for values in (step, low, high))
    return {
        "x": step + step[::-1],
        "y": high + low[::-1],
        "legendgroup": group,
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": colour + _BAND,
        "hoverinfo": "skip",
    }


def _notes(tasks: Sequence[str]) -> list[str]:
    """Return where the published results on tasks come from, in a line each."""
    origins = []
    for task in tasks:
        origins += [(style.score_label(s), s.source, s.note) for s in published_scores(task)]
        origins += [(style.curve_label(c), c.source, c.note) for c in published_curves(task)]
    return [": ".join(filter(None, origin)) for origin in dict.fromkeys(origins)]
