"""What is drawn in figures."""

from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from dreamer_bird.analysis import style
from dreamer_bird.analysis.baselines import published_curves, published_scores
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.figures import SETTINGS, draw
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import bands

TASK = "dmc_cartpole_swingup"  # with all kinds of published results
STEPS = np.arange(0, 100_001, 2000)


def log(method, seed, values, task=TASK, key="test/return"):
    curve = Curve(STEPS, np.broadcast_to(np.asarray(values, float), STEPS.shape))
    return Log(task, method, str(seed), Path(f"{task}/{method}/{seed}"), {key: curve})


@pytest.fixture(autouse=True)
def settings():
    with matplotlib.rc_context(SETTINGS):
        yield


def test_a_panel_shows_methods_and_published_results():
    logs = [log("bird", 0, 100), log("bird", 1, 200), log("dreamer", 0, 50)]
    figure = draw(bands(logs, None, "std"), None, baselines=True)
    (panel,) = figure.axes
    *found, points = panel.get_lines()
    assert points.get_xdata().tolist() == [5000]  # of the published curve, whose next is 105,000
    lines = {line.get_label(): line for line in found}
    assert set(lines["BIRD (2 seeds)"].get_ydata()) == {150}
    assert set(lines["Dreamer (1 seed)"].get_ydata()) == {50}
    for score in published_scores(TASK):
        assert set(lines[style.score_label(score)].get_ydata()) == {score.score}
    assert {"D4PG, 100M steps", "A3C, 100M steps, from states", "PlaNet, 1M steps"} < set(lines)
    assert panel.get_xlim() == pytest.approx((0, 102_000))  # the last marker is whole
    assert panel.get_title() == "Cartpole Swingup"
    assert panel.get_ylabel() == "return"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == sorted([*lines, "Dreamer, published (5 seeds)"])
    figure.draw_without_rendering()
    ticks = [tick.get_text() for tick in panel.get_xticklabels() if tick.get_position()[0] <= 102e3]
    assert ticks == ["0", "50k", "100k"]


def test_a_curve_of_one_point_is_a_marker_and_the_legend_tells_how_many_seeds_it_is_of():
    one = {"test/return": Curve(np.array([0]), np.array([50.0]))}
    early = [replace(log("bird", seed, 50), curves=one) for seed in range(2)]
    (panel,) = draw(bands(early, None, "std"), None, baselines=False).axes
    (line,) = panel.get_lines()
    assert line.get_label() == "BIRD (2 seeds)"
    assert line.get_markevery() is None  # else Matplotlib finds no place along its length of 0
    logs = [*early, log("bird", 2, 100)]
    (panel,) = draw(bands(logs, None, "std"), None, baselines=False).axes
    thin, line = panel.get_lines()
    assert line.get_label() == "BIRD (1\N{EN DASH}3 seeds)"
    # Three seeds at the first step, then one: a thin line, without a shade.
    assert np.isfinite(thin.get_ydata()).all() and thin.get_linewidth() < line.get_linewidth()
    assert np.flatnonzero(np.isfinite(line.get_ydata())).tolist() == [0]


def test_a_name_is_no_formula():
    figure = draw(bands([log(r"a$\x$b", 0, 1)], None, "std"), None, baselines=False)
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"a$\x$b (1 seed)"]


def test_a_shade_reaches_a_deviation_to_either_side():
    logs = [log("bird", 0, 100), log("bird", 1, 200)]
    (panel,) = draw(bands(logs, None, "std"), None, baselines=True).axes
    ours, published = (area.get_paths()[0].vertices[:, 1] for area in panel.collections)
    assert {*ours} == {100, 200}
    (curve,) = published_curves(TASK)
    _, mean, std = curve.until(panel.get_xlim()[1])
    assert np.isin([*(mean - std), *(mean + std)], published).all()


def test_what_a_method_observes_is_told_beside_its_name():
    logs = [log("bird (state)", 0, 100), log("bird", 0, 50)]
    (panel,) = draw(bands(logs, None, "std"), None, baselines=False).axes
    lines = {line.get_label(): line.get_color() for line in panel.get_lines()}
    assert lines.keys() == {"BIRD (1 seed)", "BIRD (state) (1 seed)"}
    assert len(set(lines.values())) == 2


@pytest.mark.parametrize(("key", "baselines"), [("model_error", True), (None, False)])
def test_published_returns_are_left_out_where_they_do_not_belong(key, baselines):
    logs = [log("bird", 0, 1, key=key or "test/return")]
    (panel,) = draw(bands(logs, key, "std"), key, baselines).axes
    assert [line.get_label() for line in panel.get_lines()] == ["BIRD (1 seed)"]
    assert len(panel.collections) == 1
    assert panel.get_ylabel() == ("model error" if key else "return")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 20])
def test_a_panel_for_each_task_within_the_width_of_a_page_and_nothing_overlaps(count):
    logs = [log("bird", 0, 1, task=f"dmc_task_{number:02}") for number in range(count)]
    figure = draw(bands(logs, None, "std"), None, baselines=True)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [f"Task {number:02}" for number in range(count)]
    assert figure.get_size_inches()[0] <= 7
    figure.draw_without_rendering()
    boxes = [panel.get_tightbbox() for panel in figure.axes]
    boxes.append(figure.legends[0].get_window_extent())
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(("name", "lines"), [("mine", 2), ("bfloat16, seed 0, at last", 3)])
def test_the_legend_has_fewer_columns_where_names_are_long(name, lines):
    logs = [log(f"{name} {number}", 0, 1) for number in range(3)]
    figure = draw(bands(logs, None, "std"), None, baselines=False)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    tops = {round(text.get_window_extent().y0) for text in figure.legends[0].get_texts()}
    assert len(tops) == lines


def test_an_empty_bin_is_no_zero():
    table = pd.DataFrame(
        {"task": TASK, "method": "bird", "at": [0, 10_000], "mean": [5.0, 6.0]}
    ).assign(low=4.0, high=7.0, seeds=1)
    (panel,) = draw(table, "fps", baselines=True).axes
    (line,) = panel.get_lines()
    assert list(line.get_xdata()) == [0, 10_000]
    assert panel.get_ylabel() == "environment steps/s"
