"""What is told of synthetic logs in memory, by known answers."""

import pytest

from dreamer_bird.analysis.logs import LogError
from dreamer_bird.analysis.summary import Question, compare_logs

STEPS = range(0, 100_001, 1000)


def ramp(slope, end=100_000):
    """Returns that rise by `slope` a thousand steps."""
    return [(step, slope * step / 1000) for step in STEPS if step <= end]


def test_a_published_curve_stands_in_for_a_method_without_logs(make_log):
    logs = [make_log([(5000 + 100_000 * k, 500 * k) for k in range(4)])]
    told = compare_logs(logs, Question(against="dreamer", at=(105_000, 305_000)))
    assert told["against"] == "dreamer (published)"
    bird, published = told["tasks"][0]["methods"]
    assert published["values"][0] == {"mean": 137.2, "std": 57.7, "seeds": 5}
    # 508.4 at 205,000 and 722.8 at 305,000; the log has a point in 100,000 steps.
    final = (508.4 + 722.8) / 2
    reach = bird["reach"][-1]
    assert published["final"]["mean"] == reach["score"] == pytest.approx(final)
    assert reach["steps"] == pytest.approx(5000 + 100_000 * final / 500, abs=1)
    assert reach["ratio"] == pytest.approx(255_000 / reach["steps"])


def test_the_method_that_others_are_compared_with_may_go_without_what_it_observes(make_log):
    logs = [make_log(ramp(1)), make_log(ramp(2), method="dreamer (32x32)")]
    assert compare_logs(logs, Question(against="dreamer"))["against"] == "dreamer (32x32)"
    logs.append(make_log(ramp(3), method="dreamer (state)"))
    with pytest.raises(LogError, match=r"choose from 'dreamer \(32x32\)', 'dreamer \(state\)'$"):
        compare_logs(logs, Question(against="dreamer"))


def test_between_published_points_there_is_a_mean_but_no_deviation(make_log):
    told = compare_logs([make_log(ramp(1))], Question(at=(55_000, 100_000, 10**8)))
    values = told["tasks"][0]["methods"][1]["values"]
    # 25.8 at 5,000 and 137.2 at 105,000.
    assert values[0] == {"mean": pytest.approx((25.8 + 137.2) / 2), "std": None, "seeds": 5}
    assert values[1]["mean"] == pytest.approx(25.8 + 0.95 * (137.2 - 25.8))
    assert values[2] == {"mean": None, "std": None, "seeds": 0}


def test_steps_are_chosen_within_what_all_logs_cover(make_log):
    logs = [make_log(ramp(1)), make_log(ramp(1, end=41_000), method="dreamer")]
    (task,) = compare_logs(logs, Question(baselines=False))["tasks"]
    assert (task["range"], task["at"]) == ([0, 41_000], [10_000, 20_000, 30_000])
    assert (task["late"], task["methods"][0]["final"]["mean"]) == ([32_800, 41_000], 37)
    assert [method["area"]["mean"] for method in task["methods"]] == pytest.approx([20.5, 20.5])
    # The sparsest log, of 20,000 steps to an evaluation, makes the bins.
    logs = [make_log([(every * k, k) for k in range(6)], seed=every) for every in (10_000, 20_000)]
    (task,) = compare_logs(logs, Question(baselines=False))["tasks"]
    assert (task["range"], task["late"]) == ([0, 50_000], [30_000, 50_000])
    assert task["methods"][0]["final"] == {"mean": 3, "std": 1, "seeds": 2}  # of 3, 4, 5 and of 2


def test_final_values_of_a_short_log_begin_at_its_start(make_log):
    logs = [make_log([(1000, 7)]), make_log([(5000 * k, k) for k in range(5)], seed=1)]
    (task,) = compare_logs(logs, Question(at=(1000,), baselines=False))["tasks"]
    assert task["late"] == [0, 1000]


def test_a_curve_that_falls_has_no_final_value_to_rise_to(make_log):
    logs = [make_log({"model_loss": ramp(slope)}, method=m) for m, slope in (("a", -1), ("b", -2))]
    (task,) = compare_logs(logs, Question(against="a", key="model_loss"))["tasks"]
    assert (task["final"], task["scores"]) == (None, [])


def test_steps_that_all_logs_have_need_no_warning(make_log, recwarn):
    logs = [make_log(ramp(1, end), seed=end) for end in (50_000, 100_000)]
    compare_logs(logs, Question(at=(50_000,)))
    assert not list(recwarn)


def test_a_run_that_ended_before_the_end_has_no_final_return(make_log):
    logs = [make_log(ramp(1, end), seed=end) for end in (70_000, 95_000, 100_000)]
    with pytest.warns(UserWarning, match="2 of 3 runs have no return shortly before step 100,000"):
        (task,) = compare_logs(logs, Question(at=(100_000,)))["tasks"]
    assert task["methods"][0]["final"] == {"mean": 90, "std": None, "seeds": 1}


def test_only_seeds_count_that_reach_a_score_within_what_all_logs_cover(make_log):
    logs = [make_log(ramp(1, end), seed=end) for end in (100_000, 41_000)]
    (task,) = compare_logs(logs, Question(scores=(30.0, 60.0), baselines=False))["tasks"]
    assert [reach["seeds"] for reach in task["methods"][0]["reach"]] == [2, 0]


def test_two_seeds_of_one_method_are_compared_as_two_logs(make_log):
    logs = [make_log({"test/return": ramp(1), "div": ramp(s)}, seed=s) for s in (1, 2)]
    (difference,) = compare_logs(logs, Question())["tasks"][0]["differences"]
    assert (difference["first"], difference["second"]) == ("bird, seed 1", "bird, seed 2")


def test_returns_of_training_beside_those_of_evaluations_are_told(make_log):
    logs = [make_log(ramp(1)), make_log({"train/return": ramp(1)}, method="dreamer")]
    with pytest.warns(UserWarning, match=r"dreamer/0: no test/return; its train/return"):
        compare_logs(logs, Question())


def test_seeds_that_share_no_bin_reach_no_score(make_log):
    early, late = ([(begin + step, 9) for step in range(0, 1000, 100)] for begin in (0, 5000))
    with pytest.warns(UserWarning, match="1 of 2 runs have no return shortly"):
        told = compare_logs([make_log(early), make_log(late, seed=1)], Question(scores=(5.0,)))
    (reach,) = (each for each in told["tasks"][0]["methods"][0]["reach"] if each["score"] == 5)
    assert (reach["steps"], reach["at_most"], reach["seeds"]) == (None, False, 1)
