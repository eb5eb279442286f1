"""Figures: what is drawn, and the command line."""

import colorsys
import json
import re
from itertools import chain, combinations
from pathlib import Path

import imageio.v3 as imageio
import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dreamer_bird.analysis import style
from dreamer_bird.analysis.bands import bands, until
from dreamer_bird.analysis.baselines import published_curves, published_scores
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.commands.plot import SETTINGS, draw

TASK = "dmc_cartpole_swingup"  # with all kinds of published results
STEPS = np.arange(0, 100_001, 2000)


def log(method, seed, values, task=TASK, key="test/return"):
    curve = Curve(STEPS, np.broadcast_to(np.asarray(values, float), STEPS.shape))
    return Log(task, method, str(seed), Path(f"{task}/{method}/{seed}"), {key: curve})


@pytest.fixture(autouse=True)
def settings():
    with matplotlib.rc_context(SETTINGS):
        yield


@pytest.fixture
def runs(tmp_path):
    """Two methods with two seeds each on two tasks; one run alone logged model_error."""
    folder = tmp_path / "runs"
    for task in (TASK, "dmc_walker_run"):
        for number, method in enumerate(("bird", "dreamer")):
            for seed in range(2):
                path = folder / task / method / str(seed) / "metrics.jsonl"
                path.parent.mkdir(parents=True)
                rows = [{"step": int(s), "test/return": s / 500 + 50 * number} for s in STEPS]
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with path.open("a") as file:
        file.write('{"step": 1000, "model_error": 2}\n{"step": 90000, "model_error": 1}\n')
    return folder


def test_the_shade_is_a_standard_deviation_around_the_mean_over_seeds():
    table = bands([log("bird", 0, 10), log("bird", 1, 20), log("bird", 2, 60)], None, "std")
    assert table["mean"].to_numpy() == pytest.approx(30)
    deviation = np.std([10, 20, 60])
    assert table["low"].to_numpy() == pytest.approx(30 - deviation)
    assert table["high"].to_numpy() == pytest.approx(30 + deviation)
    assert set(table["seeds"]) == {3}


def test_the_bootstrap_interval_is_scipys():
    values = [10, 20, 60, 65, 5, 30, 44, 21]
    table = bands([log("bird", seed, value) for seed, value in enumerate(values)], None, "ci")
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert table["low"].to_numpy() == pytest.approx(reference.low, abs=1)
    assert table["high"].to_numpy() == pytest.approx(reference.high, abs=1)
    assert table["mean"].to_numpy() == pytest.approx(np.mean(values))


def test_the_bootstrap_leaves_out_a_seed_that_ended_early():
    full, short = log("bird", 0, 10), log("bird", 1, 20)
    half = {"test/return": Curve(*(axis[:20] for axis in short.curves["test/return"]))}
    short = Log(TASK, "bird", "1", short.path, half)
    table = bands([full, short], None, "ci").set_index("step")
    assert list(table.loc[100_000, ["low", "mean", "high"]]) == [10, 10, 10]
    assert list(table.loc[10_000, ["low", "mean", "high"]]) == [10, 15, 20]


def test_a_published_curve_ends_with_the_runs():
    (curve,) = published_curves(TASK)
    assert list(curve.step[:2]) == [5000, 105_000]
    steps, mean, std = until(curve, 55_000)
    assert list(steps) == [5000, 55_000]
    assert mean == pytest.approx([curve.mean[0], curve.mean[:2].mean()])
    assert std == pytest.approx([curve.std[0], curve.std[:2].mean()])
    assert len(until(curve, 4000)[0]) == 0
    assert until(curve, 1e9)[0][-1] == curve.step[-1]


def test_a_panel_shows_methods_and_published_results():
    logs = [log("bird", 0, 100), log("bird", 1, 200), log("dreamer", 0, 50)]
    figure = draw(bands(logs, None, "std"), None, baselines=True)
    (panel,) = figure.axes
    lines = {line.get_label(): line for line in panel.get_lines()}
    assert set(lines["BIRD (2 seeds)"].get_ydata()) == {150}
    assert set(lines["Dreamer (1 seed)"].get_ydata()) == {50}
    for score in published_scores(TASK):
        assert set(lines[style.score_label(score)].get_ydata()) == {score.score}
    assert {"D4PG, 100M steps", "A3C, 100M steps, from states", "PlaNet, 1M steps"} < set(lines)
    assert panel.get_xlim() == (0, 100_000)
    assert panel.get_title() == "Cartpole Swingup"
    assert panel.get_ylabel() == "return"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == sorted([*lines, "Dreamer, published (5 seeds)"])
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["0", "50k", "100k"]


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


@pytest.mark.parametrize("count", [1, 2, 4, 5, 20])
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


DETAILS = ("", " (state)", " (both)", " (32x32)", " (both, 96x96)", " lr 1e-4")
DOZENS = [
    [name + detail for name in ("bird", "dreamer", "soft_bird") for detail in DETAILS[:4]],
    [name + detail for name in ("bird", "mine") for detail in DETAILS if name + detail != "bird"]
    + ["soft_bird (state)"],
    [f"bird (take {number})" for number in range(12)],
    [*"abcdefghi", "bird", "BIRD", "d4pg"],
]


def hue(look):
    red, green, blue = matplotlib.colors.to_rgb(look.colour)
    return colorsys.rgb_to_hsv(red, green, blue)[0]


def apart(one, other):
    """How far two hues lie apart on the circle, of which half is 0.5."""
    return abs((one - other + 0.5) % 1 - 0.5)


@pytest.mark.parametrize("names", DOZENS)
def test_a_dozen_methods_are_told_apart_without_colour(names):
    looks = style.styles(names)
    assert looks.keys() == set(names) and len(names) == 12
    for traits in ("dashes", "marker", "strokes"):
        assert len({getattr(look, traits) for look in looks.values()}) == 12


def test_known_methods_keep_their_look_and_others_look_otherwise():
    names = ["bird", "dreamer", "soft_bird", "mine", "yours", "theirs"]
    looks = style.styles(names)
    for traits in zip(*looks.values(), strict=True):
        assert len(set(traits)) == len(names)
    for names in DOZENS[:3]:
        among = style.styles([*names, "bird", "dreamer", "soft_bird"])
        assert all(among[name] == looks[name] for name in ("bird", "dreamer", "soft_bird"))
    assert style.styles(["dreamer"]) == {"dreamer": looks["dreamer"]}
    # Where all runs observe the state, there is nothing to be told from.
    assert style.styles(["dreamer (state)"]) == {"dreamer (state)": looks["dreamer"]}


def test_forms_of_a_method_share_its_hue_and_no_two_of_them_a_colour():
    families = ("bird", "dreamer", "soft_bird", "mine")
    names = {family: [family + detail for detail in DETAILS[:3]] for family in families}
    looks = style.styles(chain(*names.values()))
    hues = {family: hue(looks[family]) for family in families}
    for family, forms in names.items():
        assert max(apart(hue(looks[form]), hues[family]) for form in forms) < 0.03
        assert len({looks[form].colour for form in forms}) == 3
    assert min(apart(hues[a], hues[b]) for a, b in combinations(families, 2)) > 0.1
    looks = style.styles(["BIRD (32x32)", "soft_bird (state)", "Dreamer lr 1e-4"])
    assert [round(hue(look), 2) for look in looks.values()] == [
        round(hues[family], 2) for family in ("bird", "dreamer", "soft_bird")
    ]


def luminance(colour):
    """Of WCAG 2, from 0 for black to 1 for white."""
    parts = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_every_colour_is_seen_on_light_and_on_dark():
    template = Path(style.__file__).with_name("report.html.jinja").read_text()
    grounds = re.findall(r"--(?:paper|raised): (#\w+);", template)
    assert len(grounds) == 4  # those of the light page and of the dark one
    names = [f"{number} ({form})" for number in range(6) for form in "abc"]
    names += [f"{name} ({form})" for name in ("bird", "dreamer", "soft_bird") for form in "abc"]
    colours = {look.colour for look in style.styles(names).values()}
    assert len(colours) == 27  # all that there are
    methods = {score.method for score in published_scores()}
    colours |= {style.published_style(method).colour for method in (*methods, "another")}
    for colour in (*colours, style.PUBLISHED_CURVE.colour):
        for ground in (*grounds, "white", "black"):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, ground)


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (500, "500"), (1500, "1.5k"), (1e5, "100k"), (2.5e6, "2.5M")]
)
def test_steps_in_words(step, text):
    assert style.step_label(step) == text


def test_the_command_writes_the_files_and_names_them(runs, tmp_path, run_command):
    result = run_command("plot", runs, "--outdir", "a/b")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "a/b/return.png\na/b/return.pdf\n"
    height, width, _ = imageio.imread(tmp_path / "a/b/return.png").shape
    assert width == 5.5 * 300 and 0.3 < height / width < 0.7
    assert (tmp_path / "a/b/return.pdf").read_bytes().startswith(b"%PDF")


def test_a_run_without_the_key_is_told_and_the_others_are_drawn(runs, tmp_path, run_command):
    flags = ["--key", "model_error", "--band", "ci", "--format", "svg", "--outdir", "out"]
    result = run_command("plot", runs, *flags)
    assert (result.returncode, result.stdout) == (0, "out/model_error.svg\n")
    lines = result.stderr.splitlines()
    assert len(lines) == 7
    assert all("has no model_error" in line and "warning" in line for line in lines)
    assert "<svg" in (tmp_path / "out/model_error.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "--outdir", "out", "--key", "test/retrun"], "did you mean test/return?"),
        (
            ["runs", "--outdir", "out", "--format", "png,gif"],
            "gif: choose from png, pdf, svg",
        ),
        (["runs", "--outdir", "out", "--band", "iqr"], "'std', 'ci'"),
        (["runs"], "--outdir"),
        (["nowhere", "--outdir", "out"], "nowhere"),
        (["runs", "--outdir", "file"], "--outdir file: "),
    ],
)
def test_bad_input_is_told_in_a_line_and_creates_nothing(
    runs, tmp_path, run_command, arguments, message
):
    (tmp_path / "file").touch()
    result = run_command("plot", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_an_empty_bin_is_no_zero():
    table = pd.DataFrame(
        {"task": TASK, "method": "bird", "at": [0, 10_000], "mean": [5.0, 6.0]}
    ).assign(low=4.0, high=7.0, seeds=1)
    (panel,) = draw(table, "fps", baselines=True).axes
    (line,) = panel.get_lines()
    assert list(line.get_xdata()) == [0, 10_000]
    assert panel.get_ylabel() == "environment steps/s"
