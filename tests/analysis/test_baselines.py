"""The published returns that come with the program."""

from pathlib import Path

import numpy as np
import pytest

from dreamer_bird.analysis.baselines import (
    FOLDER,
    is_baselines,
    published_curves,
    published_scores,
)
from dreamer_bird.envs.tasks import TASKS


def test_published_scores_are_those_of_the_papers():
    scores = {score.method: score for score in published_scores("dmc_cheetah_run")}
    assert {method: score.score for method, score in scores.items()} == {
        "d4pg": 523.8,
        "a3c": 213.9,
        "planet": 662,
        "slac": 880,
    }
    assert [scores[m].step for m in ("d4pg", "planet", "slac")] == [
        100_000_000,
        1_000_000,
        3_000_000,
    ]
    assert (scores["d4pg"].observation, scores["a3c"].observation) == ("pixels", "state")


def test_every_row_has_a_source_and_a_task_that_exists():
    rows = [*published_scores(), *published_curves()]
    assert {row.task for row in rows} == set(TASKS)
    assert all(row.source for row in rows)
    assert {score.observation for score in published_scores()} == {"pixels", "state"}
    assert published_scores("dmc_quadruped_run") == []


def test_dreamers_curve_says_that_its_hyperparameters_were_others():
    (curve,) = published_curves("dmc_cartpole_swingup")
    assert "earlier hyperparameters" in curve.note
    index = list(curve.step).index(505_000)
    assert (curve.mean[index], curve.std[index], curve.seeds[index]) == (678.4, 241.9, 5)
    assert np.all(np.diff(curve.step) == 100_000)
    assert len(published_curves()) == 20


def test_which_paths_name_the_baselines(tmp_path, monkeypatch):
    assert is_baselines(FOLDER) and is_baselines(FOLDER / "curves.csv")
    assert not is_baselines(FOLDER.parent) and not is_baselines(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert is_baselines("baselines")
    Path("baselines").mkdir()
    assert not is_baselines("baselines")


def test_the_wheel_holds_them():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["baselines"] == "dreamer_bird/baselines"


def test_a_published_curve_ends_with_the_runs():
    (curve,) = published_curves("dmc_cartpole_swingup")
    assert list(curve.step[:2]) == [5000, 105_000]
    steps, mean, std = curve.until(55_000)
    assert list(steps) == [5000, 55_000]
    assert mean == pytest.approx([curve.mean[0], curve.mean[:2].mean()])
    assert std == pytest.approx([curve.std[0], curve.std[:2].mean()])
    assert len(curve.until(4000)[0]) == 0
    assert curve.until(1e9)[0][-1] == curve.step[-1]
