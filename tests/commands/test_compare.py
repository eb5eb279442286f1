"""The command `compare`: values of synthetic logs, what it prints, and how it refuses."""

import json

import numpy as np
import pytest
from command_line import python

STEPS = range(0, 100_001, 1000)
TASK = "dmc_cartpole_swingup"


def ramp(slope, end=100_000):
    """Returns that rise by `slope` a thousand steps."""
    return [(step, slope * step / 1000) for step in STEPS if step <= end]


@pytest.fixture
def tree(write_log, tmp_path):
    """Two seeds of bird, which learns twice as fast as dreamer, on two tasks."""
    for task in (TASK, "dmc_walker_run"):
        for seed, offset in enumerate((-1, 1)):
            write_log(f"logs/{task}/bird/{seed}", ramp(8 + offset))
            write_log(f"logs/{task}/dreamer/{seed}", ramp(4 + offset))
    return tmp_path / "logs"


@pytest.fixture
def write_run(write_log):
    """Write a log of returns with the settings of its run beside it."""

    def write(name, points, **settings):
        path = write_log(name, points)
        lines = (f"{key}: {value}\n" for key, value in settings.items())
        path.with_name("config.yaml").write_text("".join(lines))
        return path

    return write


@pytest.fixture
def compare(run_here):
    def compare(*arguments, run=run_here):
        done = run("compare", *arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout, parse_constant=pytest.fail)

    return compare


def test_the_numbers_of_lines_of_known_slope(tree, compare, run_command):
    flags = ["--at", "5e4,1e5", "--scores", "100,200", "--against", "dreamer"]
    told = compare(tree, *flags, run=run_command)
    assert [task["task"] for task in told["tasks"]] == [TASK, "dmc_walker_run"]
    task = told["tasks"][0]
    bird, dreamer, published = task["methods"]
    assert (bird["method"], dreamer["method"]) == ("bird", "dreamer")
    assert published["method"] == "dreamer (published)"
    assert task["width"] == 2000
    assert bird["values"][0] == pytest.approx({"mean": 400, "std": 50, "seeds": 2})
    assert bird["values"][1] == pytest.approx({"mean": 800, "std": 100, "seeds": 2})
    assert bird["final"] == pytest.approx({"mean": 720, "std": 90, "seeds": 2})
    assert bird["area"] == pytest.approx({"mean": 400, "std": 50, "seeds": 2})
    assert dreamer["area"] == pytest.approx({"mean": 200, "std": 50, "seeds": 2})
    assert (task["late"], task["final"]) == ([80_000, 100_000], pytest.approx(360))
    assert [item["score"] for item in bird["reach"]] == [100, 200, 360]
    assert [item["steps"] for item in bird["reach"]] == pytest.approx([12_500, 25_000, 45_000])
    assert [item["ratio"] for item in bird["reach"]] == pytest.approx([2, 2, 2])
    assert [item["steps"] for item in dreamer["reach"]] == pytest.approx([25e3, 50e3, 90e3])
    assert [item["seeds"] for item in dreamer["reach"]] == [2, 2, 1]
    assert [item["ratio"] for item in dreamer["reach"]] == [None] * 3
    # What lies below where a curve begins was reached at some step before, so there is no ratio.
    (least,) = (
        method["reach"]
        for method in compare(tree, "--scores", "0", "--against", "dreamer")["tasks"][0]["methods"][
            :1
        ]
    )
    assert (least[0]["ratio"], least[0]["at_most"]) == (None, True)
    assert not any(item["at_most"] for item in bird["reach"])


def test_across_tasks_and_seeds(tree, compare):
    across = compare(tree, "--against", "dreamer")["across"]
    iqm = {row["method"]: row for row in across["methods"]}
    assert across["tasks"] == [TASK, "dmc_walker_run"]
    assert iqm["bird"]["iqm"] == pytest.approx(0.72)  # between 0.63 and 0.81, each twice
    assert iqm["dreamer"]["iqm"] == pytest.approx(0.36)
    assert iqm["bird"]["low"] == pytest.approx(0.63)
    assert iqm["bird"]["high"] == pytest.approx(0.81)
    (chance,) = across["improvement"]
    assert (chance["method"], chance["other"], chance["probability"]) == ("bird", "dreamer", 1)


def test_across_tasks_only_returns_of_the_suite_have_one_scale(write_run, write_log, tree, compare):
    for method, slope in (("bird", 2), ("dreamer", 1)):
        write_run(f"logs/{method}", ramp(slope), task="gym_CartPole-v1", variant=method)
    write_log("logs/atari_pong/other/0", ramp(-0.2))  # by a method that ran no other task
    across = compare(tree)["across"]
    assert across["tasks"] == [TASK, "dmc_walker_run"]
    assert {row["method"]: row["iqm"] for row in across["methods"]} == pytest.approx(
        {"bird": 0.72, "dreamer": 0.36}
    )
    assert across["left_out"] == ["atari_pong", "gym_CartPole-v1"]


def test_what_is_left_out_across_tasks_is_told_in_a_line(write_run, tree, run_here):
    path = write_run("more", ramp(2), task="gym_CartPole-v1", variant="bird")
    line = "left out: gym_CartPole-v1: returns of the DeepMind Control Suite alone are out of 1000"
    told = run_here("compare", tree, path).stdout.splitlines()
    assert told[-1] == line
    assert any("final return / 1000 of 2 tasks" in each for each in told)
    alone = run_here("compare", path).stdout.splitlines()
    nothing = "no task of the DeepMind Control Suite on which every method has a final return"
    assert alone[-2:] == [nothing, line]
    assert "left out" not in run_here("compare", tree).stdout
    write_run("more", ramp(2), task="dmc_cup_catch", variant="bird")
    line = "left out: dmc_cup_catch: not every method has a final return there"
    assert run_here("compare", tree, path).stdout.splitlines()[-1] == line


def test_runs_from_state_are_no_seeds_of_those_from_pixels(write_run, compare, run_here, tmp_path):
    logs, run = tmp_path / "logs", {"task": TASK, "variant": "bird"}
    for seed, slope in enumerate((1, 3)):
        write_run(f"logs/pixels/{seed}", ramp(slope), **run, seed=seed, obs="pixels")
        write_run(f"logs/state/{seed}", ramp(2 * slope), **run, seed=seed, obs="state")
    told = compare(logs, "--at", "1e5", "--against", "bird (state)")
    pixels, state, _ = told["tasks"][0]["methods"]
    assert (pixels["method"], state["method"]) == ("bird", "bird (state)")
    assert pixels["values"] == [pytest.approx({"mean": 200, "std": 100, "seeds": 2})]
    assert state["values"] == [pytest.approx({"mean": 400, "std": 200, "seeds": 2})]
    assert "\n BIRD (state) " in run_here("compare", logs).stdout


def test_steps_without_data_and_scores_never_reached_are_null(tree, compare):
    told = compare(tree, "--at", "5e4,9e5", "--scores", "5000", "--no-baselines")
    bird = told["tasks"][0]["methods"][0]
    assert bird["values"][1] == {"mean": None, "std": None, "seeds": 0}
    never = {"steps": None, "ratio": None, "seeds": 0, "at_most": False}
    assert bird["reach"] == [{"score": 5000, **never}]
    assert told["across"]["tasks"] == []


def test_any_logged_key_and_where_two_logs_part(write_log, compare, tmp_path):
    noise = np.random.default_rng(0).normal(size=(2, len(STEPS)))
    shift = np.where(np.array(STEPS) > 50_000, 50, 0)
    for name, values in (("bird", noise[0]), ("dreamer", noise[1] + shift)):
        write_log(f"{TASK}/{name}/0", zip(STEPS, values, strict=True), key="model_loss")
    told = compare(tmp_path, "--key", "model_loss")
    assert told["across"] is None
    (difference,) = told["tasks"][0]["differences"]
    assert (difference["first"], difference["second"]) == ("bird", "dreamer")
    (metric,) = difference["metrics"]
    assert (metric["key"], metric["step"]) == ("model_loss", 50_000)
    assert metric["second"] == pytest.approx(50, abs=1)


def test_the_tables_say_it_in_100_columns(tree, run_command):
    done = run_command("compare", tree, "--against", "dreamer", "--at", "1e4,2e4,3e4,4e4,5e4,6e4")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert f"\n{TASK}\n" in done.stdout
    for text in ("BIRD", "Dreamer (published)", "400 ± 50 (2)", "x2.00", "D4PG 862 (pixels, 100M)"):
        assert text in done.stdout
    assert "final: 48k to 60k; area: 0 to 100k" in done.stdout
    assert "0.432 [" in done.stdout


def test_the_published_returns_alone(run_here, compare):
    assert len(compare("baselines")["published"]) == 46
    assert "dmc_walker_walk" in run_here("compare", "baselines").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file or folder"),
        (["."], "no log in it or below"),
        (["log", "--key", "tset/return"], "did you mean test/return?"),
        (["log", "--against", "dremer"], "--against dremer: choose from bird, dreamer (published)"),
        (["log", "--against", "x", "--no-baselines"], "--against x: choose from bird"),
        (["log", "--at", "1e5,x"], "--at 1e5,x: must be numbers with commas between them"),
        (["log", "--at", "0"], "--at 0: steps must be whole numbers from 1 to 2**53"),
        (["log", "--scores", "nan"], "--scores nan: must be numbers with commas between them"),
        (["log", "--scroes", "1"], "unknown flag --scroes: did you mean --scores?"),
        (["baselines", "--key", "kl"], "--key: of logs, not of baselines alone"),
        ([], "the following arguments are required: [NAME=]PATH"),
    ],
)
def test_bad_input_is_one_line_and_status_2(write_log, run_command, run_here, arguments, message):
    run = run_here if arguments else run_command
    if "log" in arguments:
        path = write_log(f"{TASK}/bird/0", ramp(1))
        arguments = [path if word == "log" else word for word in arguments]
    done = run("compare", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_can_be_shown_is_shown(write_log, run_command):
    good = write_log(f"{TASK}/bird/0", ramp(1), lines=["{"])
    other = write_log(f"{TASK}/bird/1", ramp(1), key="div")
    done = run_command("compare", good, other, "missing")
    assert done.returncode == 0
    assert "BIRD" in done.stdout
    told = done.stderr.splitlines()
    assert len(told) == 3
    assert "dropped 1 of 102 lines" in told[0]
    assert "missing: no such file or folder" in told[1]
    assert "bird/1/metrics.jsonl has no returns" in told[2]


def test_the_command_needs_no_tensorflow(write_log):
    path = write_log(f"{TASK}/bird/0", ramp(1))
    code = (
        "import sys; from dreamer_bird.cli import main;"
        f"print(main(['compare', {str(path)!r}]), 'tensorflow' in sys.modules)"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "0 False"


def test_runs_that_end_early_are_named(write_log, run_here):
    ends = {"bird": (100_000, 100_000, 40_000), "dreamer": (60_000,)}
    paths = [
        write_log(f"{TASK}/{method}/{seed}", ramp(1, end))
        for method in ends
        for seed, end in enumerate(ends[method])
    ]
    done = run_here("compare", *paths, "--at", "55000")
    assert done.returncode == 0
    (told,) = (line for line in done.stderr.splitlines() if " ends at step " in line)
    assert "bird/2/metrics.jsonl: ends at step 40,000 of 100,000" in told
    assert "(1 more end early)" in told
    lacking = "bird on dmc_cartpole_swingup: 1 of 3 runs have no return shortly before step 55,000"
    assert lacking in done.stderr


def test_names_that_look_like_markup_are_shown_as_they_are(write_log, run_here):
    done = run_here("compare", f"[/bold]={write_log(f'{TASK}/bird/0', ramp(1))}")
    assert done.returncode == 0, done.stderr
    assert "[/bold]" in done.stdout
