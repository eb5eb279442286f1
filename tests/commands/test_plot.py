"""The command `plot`: the files that it writes, and how it refuses."""

import json

import imageio.v3 as imageio
import numpy as np
import pytest

TASK = "dmc_cartpole_swingup"  # with all kinds of published results
STEPS = np.arange(0, 100_001, 2000)


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


def test_the_command_writes_the_files_and_names_them(runs, tmp_path, run_command):
    result = run_command("plot", runs, "--outdir", "a/b")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "a/b/return.png\na/b/return.pdf\n"
    height, width, _ = imageio.imread(tmp_path / "a/b/return.png").shape
    assert width == 5.5 * 300 and 0.3 < height / width < 0.7
    assert (tmp_path / "a/b/return.pdf").read_bytes().startswith(b"%PDF")


def test_a_run_without_the_key_is_told_and_the_others_are_drawn(runs, tmp_path, run_here):
    flags = ["--key", "model_error", "--band", "ci", "--format", "svg", "--outdir", "out"]
    result = run_here("plot", runs, *flags)
    assert (result.returncode, result.stdout) == (0, "out/model_error.svg\n")
    lines = result.stderr.splitlines()
    assert len(lines) == 7
    assert all("has no model_error" in line and "warning" in line for line in lines)
    assert "<svg" in (tmp_path / "out/model_error.svg").read_text()


def test_returns_of_training_beside_those_of_evaluations_are_told(runs, tmp_path, run_here):
    path = tmp_path / TASK / "v3" / "0" / "scores.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 1000, "episode/score": 5}\n')
    result = run_here("plot", runs, path, "--format", "svg", "--outdir", "out")
    (line,) = result.stderr.splitlines()
    assert result.returncode == 0
    assert line.endswith("no test/return; its train/return is compared with that of others")


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
    runs, tmp_path, run_here, arguments, message
):
    (tmp_path / "file").touch()
    result = run_here("plot", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]
