"""Figures for a paper: a panel for each task, drawn by Matplotlib."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dreamer_bird.analysis import style
from dreamer_bird.analysis.baselines import published_curves, published_scores
from dreamer_bird.analysis.logs import is_return
from dreamer_bird.utils.files import replacing

FORMATS = ("png", "pdf", "svg")
# Inches by the panels in a row: a column, or the whole width, of usual papers.
_WIDTHS = {1: 3.4, 2: 5.5, 3: 7.0, 4: 7.0}
_HEIGHT = 0.7  # of a panel, over its width

# Type that stays readable at the printed size; letters as letters in PDF, as journals ask.
SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,
    "savefig.dpi": 300,
    "text.parse_math": False,  # names may hold a $
}


def write_figure(
    table: pd.DataFrame, key: str | None, baselines: bool, folder: Path, formats: Sequence[str]
) -> list[Path]:
    """Draw the figure, as `draw` does, and write it in each format; return the paths."""
    name = (key or "return").replace("/", "-")
    paths = [folder / f"{name}.{extension}" for extension in formats]
    with matplotlib.rc_context(SETTINGS):
        figure = draw(table, key, baselines)
        for path, extension in zip(paths, formats, strict=True):
            with replacing(path) as file:
                figure.savefig(file, format=extension)
    return paths


def draw(table: pd.DataFrame, key: str | None, baselines: bool) -> Figure:
    """Return the figure of a table with the columns task, method, at, mean, low, high, seeds.

    A curve is thin where it lacks some of its seeds. With `baselines` the published scores and
    curves are drawn behind returns.
    """
    tasks = sorted(table["task"].unique())
    columns = len(tasks) if len(tasks) <= 3 else min(4, math.ceil(len(tasks) ** 0.5))
    rows = -(-len(tasks) // columns)
    width = _WIDTHS[columns]
    figure = Figure(layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    looks = style.styles(table["method"])
    seeds = table.groupby("method")["seeds"]
    labels = {method: style.method_label(method, seeds.get_group(method)) for method in looks}
    for number, (panel, task) in enumerate(zip(panels, tasks, strict=False)):
        _draw_curves(panel, table[table["task"] == task], looks, labels)
        if baselines and is_return(key):
            _draw_published(panel, task)
        _arrange(panel, task)
        if number % columns == 0:
            panel.set_ylabel(style.axis_title(key))
        if number + columns >= len(tasks):
            panel.set_xlabel("environment steps")
    for panel in panels[len(tasks) :]:
        panel.remove()
    figure.align_ylabels()
    figure.set_figwidth(width)
    lines = _add_legend(figure, columns)
    figure.set_size_inches(width, rows * _HEIGHT * width / columns + 0.16 * lines + 0.2)
    return figure


def _draw_curves(
    panel: Axes, table: pd.DataFrame, looks: dict[str, style.Style], labels: dict[str, str]
) -> None:
    for number, (method, look) in enumerate(looks.items()):
        rows = table[table["method"] == method]
        whole = rows["seeds"] == rows["seeds"].max()
        if not whole.all():
            panel.plot(rows["at"], rows["mean"], color=look.colour, linewidth=0.5, zorder=3)
        panel.plot(
            rows["at"],
            rows["mean"].where(whole),
            color=look.colour,
            linestyle=(0, look.dashes) if look.dashes else "-",
            marker=look.marker,
            # Of the diagonal, each elsewhere; but so a curve of one point would have no marker.
            markevery=((0.05 + 0.06 * number) % 0.22, 0.22) if len(rows) > 1 else None,
            label=labels[method],
            zorder=3,
        )
        panel.fill_between(
            rows["at"], rows["low"], rows["high"], color=look.colour, alpha=0.18, linewidth=0
        )
    panel.set_xlim(0, 1.02 * table["at"].max() or 1)  # room for half of the last marker


def _draw_published(panel: Axes, task: str) -> None:
    for score in published_scores(task):
        look = style.published_style(score.method)
        dashes = (0, look.dashes)
        label = style.score_label(score)
        panel.axhline(
            score.score, color=look.colour, linestyle=dashes, linewidth=0.9, label=label, zorder=2
        )
    for curve in published_curves(task):
        end, colour = panel.get_xlim()[1], style.PUBLISHED_CURVE.colour
        steps, mean, std = curve.until(end)
        if len(steps):
            label = style.curve_label(curve)
            ends = mean - std, mean + std
            panel.fill_between(steps, *ends, color=colour, alpha=0.3, linewidth=0, label=label)
            known = curve.step <= end  # between these the band is a straight line
            panel.plot(curve.step[known], curve.mean[known], ".", color=colour, zorder=2)


def _arrange(panel: Axes, task: str) -> None:
    panel.set_title(style.task_title(task))
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: style.step_label(step)))
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def _add_legend(figure: Figure, columns: int) -> int:
    """Put one legend for all panels below them and return its number of lines."""
    entries = {}
    for panel in figure.axes:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    for across in range(max(2, columns), 0, -1):
        legend = figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=across,
            frameon=False,
            handlelength=4.5,  # room for the longest dashes on both sides of a marker
            columnspacing=1.2,
        )
        # Long names have room in fewer columns.
        if across == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return -(-len(entries) // across)
        legend.remove()
