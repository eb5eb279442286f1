"""The report: its content, that it is self-contained, and what it does in a real browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from browser import EXECUTABLE, browse
from command_line import command

from dreamer_bird.analysis import reliability
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.page import render
from dreamer_bird.commands import compare

TASKS = ("dmc_cartpole_swingup", "dmc_walker_run")
METHODS = ("bird", "dreamer", "soft_bird")
EVIL = "</script><img src=x onerror=boom()>"

needs_browser = pytest.mark.skipif(
    EXECUTABLE is None, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three methods with two seeds on two tasks; bird alone has a confidence and videos."""
    folder = tmp_path_factory.mktemp("runs")
    for task in TASKS:
        for number, method in enumerate(METHODS):
            for seed in range(2):
                _write_run(folder / task / method / str(seed), task, method, number, seed)
    return folder


def _write_run(logdir, task, method, number, seed):
    logdir.mkdir(parents=True)
    with (logdir / "metrics.jsonl").open("w") as file:
        for step in range(0, 100_001, 5000):
            row = {"step": step, "test/return": 100 * number + step / 1000 + seed}
            row["model_error"] = 2 - step / 1e5
            if method == "bird":
                row["confidence_correlation"] = -step / 1e5
            file.write(json.dumps(row) + "\n")
    settings = f"variant: {method}\ntask: {task}\nseed: {seed}\nactor:\n  lr: 8.0e-5\n"
    if (method, seed) == ("dreamer", 1):
        settings = settings.replace("8.0e-5", "0.001")
    (logdir / "config.yaml").write_text(settings + "replay:\n  batch: 16\n")
    if method == "bird":
        (logdir / "videos").mkdir()
        for step in (900, 20_000):
            frames = np.full((2, 8, 8, 3), step % 256, np.uint8)
            imageio.imwrite(logdir / "videos" / f"evaluation-{step}.gif", frames)


@pytest.fixture(scope="module")
def page_file(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = command("report", runs, "--out", "new/page", cwd=folder)
    assert (result.returncode, result.stdout) == (0, "new/page/index.html\n")
    differing = [f"dreamer on {task}: runs differ in actor.lr (0.001, 8e-05)" for task in TASKS]
    lines = result.stderr.splitlines()
    assert all(told in line for told, line in zip(differing, lines, strict=True))
    assert [path.name for path in (folder / "new/page").iterdir()] == ["index.html"]
    return folder / "new/page/index.html"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def log(method, seed=0, task=TASKS[0], config=None, path=Path("x/metrics.jsonl"), **keys):
    curves = {
        key.replace("__", "/"): Curve(np.array([0, 1000]), np.array(v)) for key, v in keys.items()
    }
    return Log(task, method, str(seed), path, curves, config or {})


def test_the_page_is_self_contained_and_accessible(page_file):
    elements = Elements(page_file.read_text())
    assert not elements.all("link")
    assert all("src" not in script for script in elements.all("script"))
    assert len(elements.all("img")) == 4
    assert all(image["src"].startswith("data:image/gif;base64,") for image in elements.all("img"))
    assert all(len(image["alt"]) > 20 for image in elements.all("img"))
    assert all(
        "BIRD" in plot["aria-label"] for plot in elements.all("div") if "data-traces" in plot
    )
    assert len(elements.all("h1")) == len(elements.all("title")) == 1
    assert elements.all("html") == [{"lang": "en"}]
    (policy,) = (meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'") and "http" not in policy


def test_panels_hold_means_bands_and_published_results(page_file):
    plots = [d for d in Elements(page_file.read_text()).all("div") if "data-traces" in d]
    assert len(plots) == 6  # returns, model error and confidence on two tasks
    traces = {t["name"]: t for t in json.loads(plots[0]["data-traces"]) if "name" in t}
    assert list(traces) == [
        *("D4PG, 100M steps", "A3C, 100M steps, from states", "PlaNet, 1M steps"),
        *("BIRD", "Dreamer", "Soft-BIRD"),
    ]
    at = traces["Dreamer"]["x"].index(100_000)
    assert traces["Dreamer"]["y"][at] == pytest.approx(200.5)
    assert traces["Dreamer"]["customdata"][at] == " ± 0.5, seeds: 2"
    correlation = json.loads(plots[4]["data-traces"])
    assert {trace["legendgroup"] for trace in correlation} == {"run bird"}
    _, line = correlation
    assert line["y"] == pytest.approx([-step / 1e5 for step in line["x"]])


def test_the_tables_are_those_of_compare(page_file, runs, capsys, monkeypatch):
    monkeypatch.setattr(reliability, "REPETITIONS", 20)  # whose intervals are not looked at here
    assert compare.main([str(runs)]) == 0
    text = page_file.read_text()
    numbers = re.findall(r"\d+ ± \d[\d.]* \(\d\)", capsys.readouterr().out)
    assert len(numbers) >= 6
    elements = Elements(text)
    assert [n for n in numbers if n not in elements.text] == []
    for task in TASKS:
        assert f"<h3>{task}</h3>" in text


def test_marked_settings_on_the_page(page_file):
    text = page_file.read_text()
    assert re.findall("<mark>(.*?)</mark>", text) == ["marked", "0.001", "0.001"]
    assert '<th scope="row">replay.batch</th><td class="text">16</td>' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "out"], "nowhere"),
        (["empty", "--out", "out"], "empty"),
        (["runs"], "--out"),
        ([], "--out"),
        (["log.jsonl", "--out", "log.jsonl"], "--out log.jsonl: "),
        (["log.jsonl", "--out", "out", "--ouf", "x"], "unknown flag --ouf: did you mean --out?"),
    ],
)
def test_bad_input_is_told_in_a_line_and_creates_nothing(tmp_path, run_here, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "log.jsonl").write_text('{"step": 1, "test/return": 2}\n')
    result = run_here("report", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "log.jsonl"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browse(tmp_path_factory.mktemp("profile")) as page:
        yield page


SHOWN = """[...document.querySelectorAll('.plot')].map((plot) =>
    plot.querySelectorAll('.scatterlayer .trace').length)"""
SWITCH = """[...document.querySelectorAll('.switches label')]
    .find((label) => label.innerText.trim() === '{}').querySelector('input').click()"""


@needs_browser
def test_the_page_draws_itself_without_errors_or_requests(page, page_file):
    page.open(page_file)
    assert page.run("document.querySelectorAll('.plot .main-svg').length > 0")
    # Two traces a method; three scores or two, and the area of a published curve.
    assert page.run(SHOWN) == [10, 9, 6, 6, 2, 2]
    page.run("[...document.images].every((i) => i.loading = 'eager')")  # and not when seen
    script = "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))"
    assert page.run(script) == [8] * 4
    assert page.problems() == []
    assert set(page.requests()) == {page_file.as_uri()}


@needs_browser
def test_a_switch_hides_a_method_in_all_panels_and_shows_it_again(page, page_file):
    page.open(page_file)
    before = page.run(SHOWN)
    page.run(SWITCH.format("Dreamer"))
    assert page.run(SHOWN) == [8, 7, 4, 4, 2, 2]
    page.run(SWITCH.format("BIRD"))
    assert page.run(SHOWN) == [6, 5, 2, 2, 0, 0]
    page.run(SWITCH.format("D4PG, 100M steps"))
    assert page.run(SHOWN) == [5, 4, 2, 2, 0, 0]
    for name in ("D4PG, 100M steps", "BIRD", "Dreamer"):
        page.run(SWITCH.format(name))
    assert page.run(SHOWN) == before
    assert page.problems() == []


@needs_browser
def test_a_tooltip_shows_the_curves_at_a_step(page, page_file):
    page.open(page_file)
    box = page.run(
        "JSON.stringify(document.querySelector('.plot .nsewdrag').getBoundingClientRect())"
    )
    box = json.loads(box)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for move in range(2):
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + move, y=y)
    script = """new Promise((done) => setTimeout(() =>
        done(document.querySelector('.plot .hoverlayer').textContent), 300))"""
    text = page.run(script)
    assert "50,000" in text
    assert "Dreamer : 150.5 ± 0.5, seeds: 2" in text


@needs_browser
def test_colours_follow_the_reader(page, page_file):
    colours = []
    for scheme in ("light", "dark"):
        page.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        page.open(page_file)
        ink = "getComputedStyle(document.querySelector('.xtick text')).fill"
        colours.append(page.run(f"[{ink}, getComputedStyle(document.body).backgroundColor]"))
    assert colours == [
        ["rgb(27, 31, 36)", "rgb(255, 255, 255)"],
        ["rgb(230, 237, 243)", "rgb(15, 19, 24)"],
    ]


@needs_browser
def test_names_are_shown_as_they_are(page, tmp_path):
    runs = [log(EVIL, task=EVIL, test__return=[1.0, 2.0], config={EVIL: EVIL, "b": 1})]
    runs.append(log("<b>x</b>", task=EVIL, test__return=[1.0, 2.0], config={"b": EVIL}))
    (tmp_path / "index.html").write_text(render(runs, baselines=True))
    page.open(tmp_path / "index.html")
    assert page.run("document.images.length + document.querySelectorAll('b').length") == 0
    labels = (
        "[...document.querySelectorAll('.switches label')].map((label) => label.innerText.trim())"
    )
    assert page.run(labels) == [EVIL, "<b>x</b>"]
    assert page.run(SHOWN) == [2]  # one seed each, without a shade
    assert page.problems() == []
