"""Interactive panels of the report: curves of a task as the traces that plotly.js draws."""

import html
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from dreamer_bird.analysis import style
from dreamer_bird.analysis.baselines import PublishedCurve, Score

_BAND = "2E"  # opacity of a shaded area, as the last two digits of a colour


class Switch(NamedTuple):
    """Shows or hides a method, or a published result, in all panels of the page."""

    group: str
    label: str
    look: style.Style
    width: float  # pixels of its line; a published curve is an area


class Panel(NamedTuple):
    """A task's curves."""

    title: str
    alt: str
    traces: list[dict]


def method_group(method: str) -> str:
    """Return the group that a method's switch shows and hides."""
    return f"run {method}"


def published_group(label: str) -> str:
    """Return the group that the switch of a published result shows and hides."""
    return f"published {label}"


def method_traces(table: pd.DataFrame, method: str, look: style.Style) -> list[dict]:
    """Return a method's line and shaded area.

    The table is a task's and has the columns method, at (step), mean, low, high, std and seeds.
    """
    rows = table[table["method"] == method]
    group = method_group(method)
    # plotly.js takes a few HTML tags in texts; a name that holds some is shown as it is.
    name = html.escape(style.title(method))
    line = {
        "x": rows["at"].tolist(),
        "y": rows["mean"].tolist(),
        "customdata": rows[["std", "seeds"]].to_numpy().tolist(),
        "name": name,
        "legendgroup": group,
        "mode": "lines" if len(rows) > 1 else "markers",
        "line": {"color": look.colour, "dash": look.strokes, "width": 2},
        "hovertemplate": "%{y:.4~g} ± %{customdata[0]:.3~g}, seeds: %{customdata[1]}",
    }
    return [_area(rows["at"], rows["low"], rows["high"], look.colour, group), line]


def score_traces(scores: Iterable[Score], steps: list[int]) -> list[dict]:
    """Return the horizontal lines of published scores, with a tooltip at each of the steps."""
    return [
        {
            "x": [0, *steps],
            "y": [score.score] * (len(steps) + 1),
            "name": html.escape(style.score_label(score)),
            "legendgroup": published_group(style.score_label(score)),
            "mode": "lines",
            "line": {
                "color": style.published_style(score.method).colour,
                "dash": style.published_style(score.method).strokes,
                "width": 1.3,
            },
            "hovertemplate": "%{y:.4~g}",
        }
        for score in scores
    ]


def published_trace(curve: PublishedCurve, end: int) -> dict:
    """Return the area of a published curve up to the step `end`: a deviation from its mean."""
    step, mean, std = curve.until(end)
    look, label = style.PUBLISHED_CURVE, style.curve_label(curve)
    return _area(step, mean - std, mean + std, look.colour, published_group(label))


def _area(step: Iterable, low: Iterable, high: Iterable, colour: str, group: str) -> dict:
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
