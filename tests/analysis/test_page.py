"""Which sections the page has."""

from pathlib import Path

import numpy as np

from dreamer_bird.analysis import page, style
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.page import render
from dreamer_bird.analysis.statistics import bands

TASKS = ("dmc_cartpole_swingup", "dmc_walker_run")


def log(method, seed=0, task=TASKS[0], config=None, path=Path("x/metrics.jsonl"), **keys):
    curves = {
        key.replace("__", "/"): Curve(np.array([0, 1000]), np.array(v)) for key, v in keys.items()
    }
    return Log(task, method, str(seed), path, curves, config or {})


def test_an_area_runs_along_its_upper_end_and_back_along_its_lower_one():
    logs = [log("mine", seed, test__return=[100.0, 100.0 * (seed + 1)]) for seed in range(2)]
    look = style.styles(["mine"])["mine"]
    area, line = page._method_traces(bands(logs, None, "std"), "mine", look)
    assert line["x"] == [0, 1000] and line["y"] == [100, 150]
    assert area["x"] == [0, 1000, 1000, 0] and area["y"] == [100, 200, 100, 100]


def test_sections_without_data_are_left_out():
    text = render([log("mine", model_loss=[1.0, 2.0])], baselines=True)
    assert 'id="returns"' not in text and 'id="tables"' not in text and "<img" not in text
    text = render([log("mine", test__return=[1.0, 2.0])], baselines=False)
    assert 'id="returns"' in text and "D4PG" not in text
