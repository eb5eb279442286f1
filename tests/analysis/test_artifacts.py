"""Settings and videos beside logs."""

import base64
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from dreamer_bird.analysis import artifacts
from dreamer_bird.analysis.artifacts import find_videos, settings_table
from dreamer_bird.analysis.logs import Log


def log(seed=0, path=Path("x/metrics.jsonl"), config=None):
    return Log("dmc_cartpole_swingup", "bird", str(seed), path, {}, config or {})


@pytest.fixture
def run(tmp_path):
    """The log of a run with two videos."""
    (tmp_path / "videos").mkdir()
    for step in (900, 20_000):
        frames = np.full((2, 8, 8, 3), step % 256, np.uint8)
        imageio.imwrite(tmp_path / "videos" / f"evaluation-{step}.gif", frames)
    return log(path=tmp_path / "metrics.jsonl")


def test_settings_that_differ_are_marked():
    configs = [{"a": 1, "b": 2.0, "logdir": "x"}, {"a": 1, "b": 2.0}, {"a": 1, "b": 3.5, "c": None}]
    logs = [log(seed, config=config) for seed, config in enumerate(configs)]
    settings = settings_table([*logs, log()])
    assert settings["differing"] == ["b", "c"]
    assert [[tuple(cell) for cell in cells] for _, cells in settings["rows"]] == [
        [("2", False), ("\N{EM DASH}", False)],
        [("2", False), ("\N{EM DASH}", False)],
        [("3.5", True), ("null", True)],
    ]
    assert settings["rows"][2][0] == "BIRD on Cartpole Swingup, seed 2"
    assert (settings["common"], settings["without"]) == ({"a": "1"}, 1)


def test_settings_without_a_majority_are_all_marked():
    settings = settings_table([log(seed, config={"a": seed // 2}) for seed in range(6)])
    assert [cells for _, cells in settings["rows"]] == [[(str(n // 2), True)] for n in range(6)]
    halves = settings_table([log(seed, config={"a": seed}) for seed in range(2)])
    assert [cells for _, cells in halves["rows"]] == [[("0", False)], [("1", False)]]


def test_the_last_video_of_a_run_unless_it_is_too_large(run, monkeypatch):
    (video,), left_out = find_videos([run])
    assert left_out == []
    last = (run.path.parent / "videos/evaluation-20000.gif").read_bytes()
    assert base64.b64decode(video["source"].partition(",")[2]) == last
    assert video["caption"] == "BIRD on Cartpole Swingup, seed 0, at step 20k"
    monkeypatch.setattr(artifacts, "LARGEST_VIDEO", len(last) - 1)
    videos, (line,) = find_videos([run])
    assert videos == [] and "left out" in line and "evaluation-20000.gif" in line
    monkeypatch.undo()
    monkeypatch.setattr(artifacts, "ALL_VIDEOS", len(last))
    videos, (line,) = find_videos([run] * 2)
    assert len(videos) == 1 and "all together" in line
