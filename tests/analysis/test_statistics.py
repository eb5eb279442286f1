"""Statistics of curves, by known answers."""

import math
from pathlib import Path

import numpy as np
import pytest
from rliable import metrics as rliable_metrics
from scipy import integrate, stats

from dreamer_bird.analysis import reliability
from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.divergence import differences
from dreamer_bird.analysis.logs import Log
from dreamer_bird.analysis.statistics import (
    area,
    bands,
    bin_width,
    binned,
    common_range,
    mean_curve,
    spread,
    steps_to_reach,
    value_at,
)


def curve(steps, values):
    return Curve(np.array(steps), np.array(values, float))


def line(last, every=1000, slope=0.001):
    steps = np.arange(0, last + 1, every)
    return Curve(steps, slope * steps)


@pytest.mark.parametrize(
    ("steps", "width"),
    [
        (range(0, 50_001, 1000), 1000),
        (range(0, 500_001, 1000), 10_000),
        (range(0, 60_001, 1000), 2000),
        (range(5000, 5_000_001, 100_000), 100_000),
        (range(0, 30, 1), 1),
        ([700], 1),
    ],
)
def test_the_width_of_bins_suits_the_longest_and_the_sparsest_curve(steps, width):
    assert bin_width([curve(steps, steps)]) == width
    assert bin_width([curve(steps, steps), curve([0, 200_000], [0, 0])]) == 200_000


def test_a_bin_holds_the_points_up_to_half_a_width_on_either_side():
    bins = binned(curve([0, 5, 6, 14, 15, 16, 37], [1, 3, 5, 6, 7, 8, 9]), 10)
    assert bins.index.tolist() == [0, 10, 20, 40]
    assert bins["value"].tolist() == [2, 6, 8, 9]


@pytest.mark.parametrize("spacing", [250, 1000, 2000])
def test_a_straight_line_has_its_own_values_at_steps_however_it_is_logged(spacing):
    steps = np.arange(0, 20_001, spacing)
    line = curve(steps, steps / 100)
    for step in (2000, 7000, 10_000, 19_000):
        assert value_at(line, step, 2000) == pytest.approx(step / 100)


def test_nothing_is_told_of_steps_far_from_all_points():
    points = curve([0, 10, 60], [1, 3, 5])
    assert value_at(points, 5, 10) == 2
    assert value_at(points, 64, 10) == 5
    for step in (20, 50, 66):
        assert math.isnan(value_at(points, step, 10))


def test_means_over_seeds_on_unequal_steps(make_log):
    logs = [
        make_log([(1000, 1), (11_000, 3), (21_000, 5)], seed=0),
        make_log([(2000, 3), (9000, 4), (12_000, 6)], seed=1),
        make_log([(10_000, 8)], method="dreamer"),
    ]
    table = bands(logs, None, "std")
    rows = [tuple(row)[1:-2] for row in table.fillna(-1).itertuples(index=False)]
    assert rows == [
        ("bird", 0, 1500, 2, 1, 2),
        ("bird", 10_000, 10_750, 4, 1, 2),
        ("bird", 20_000, 21_000, 5, -1, 1),  # of one seed there is no deviation
        ("dreamer", 10_000, 10_000, 8, -1, 1),
    ]
    columns = ["task", "method", "step", "at", "mean", "std", "seeds", "low", "high"]
    assert list(table.columns) == columns


def test_the_deviation_is_that_of_a_population():
    assert spread([1, 5, math.nan]) == (3, 2, 2)
    assert spread([4]) == (4, pytest.approx(math.nan, nan_ok=True), 1)
    assert spread([math.nan])[2] == 0


def test_the_mean_curve_has_only_bins_with_every_seed():
    both = mean_curve([curve([4, 12, 20], [1, 2, 3]), curve([6, 30, 50], [3, 5, 9])], 20)
    assert both.step.tolist() == [5, 23]  # of 4 and 6, of 16 and 30; 40 has a point of one alone
    assert both.value.tolist() == [2, 3.75]
    assert mean_curve([line(1000), line(500)], 1000).step.tolist() == [0]


def test_the_area_of_a_line_and_of_a_step_are_exact():
    assert area(line(100_000), 0, 100_000) == pytest.approx(50)
    assert area(line(100_000), 20_500, 40_500) == pytest.approx(30.5)
    jump = curve([0, 10, 10_000, 20_000], [0, 100, 100, 100])
    assert area(jump, 0, 20_000) == pytest.approx((20_000 * 100 - 10 * 50) / 20_000)


def test_the_area_is_the_trapezoid_rules_on_unequal_steps():
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 100, 50))
    values = rng.normal(size=50)
    expected = integrate.trapezoid(values, steps) / (steps[-1] - steps[0])
    assert area(Curve(steps, values), steps[0], steps[-1]) == pytest.approx(expected)


def test_nothing_is_extrapolated():
    assert math.isnan(area(line(1000), 0, 2000))
    assert math.isnan(area(line(1000), 500, 500))
    assert math.isnan(steps_to_reach(line(1000), 2))
    assert common_range([line(1000), curve([300, 4000], [0, 0])]) == (300, 1000)
    assert common_range([line(1000), curve([3000, 4000], [0, 0])]) == (3000, 3000)


def test_steps_to_reach_a_score_are_those_of_the_first_crossing():
    zigzag = curve([0, 100, 200, 300], [0, 10, 0, 20])
    assert steps_to_reach(zigzag, 5) == 50
    assert steps_to_reach(zigzag, 10) == 100
    assert steps_to_reach(zigzag, 15) == 275
    assert steps_to_reach(zigzag, 0) == 0
    assert steps_to_reach(curve([700], [3]), 2) == 700


def test_binning_does_not_move_the_crossings_of_a_line():
    offset = Curve(np.arange(5000, 1_000_001, 10_000), np.arange(5000, 1_000_001, 10_000) / 1000)
    binned_mean = mean_curve([offset, offset], 50_000)
    assert steps_to_reach(binned_mean, 412) == pytest.approx(412_000)


NOISE = np.random.default_rng(0).normal(size=(2, 101))
STEPS = np.arange(0, 100_001, 1000)


def metrics(make_log, values, **names):
    return make_log({key: list(zip(STEPS, v, strict=True)) for key, v in values.items()}, **names)


def test_where_two_noisy_logs_part(make_log):
    later = np.where(STEPS > 60_000, 20, 0)
    first = metrics(make_log, {"div": NOISE[0], "model_loss": NOISE[0], "train/return": NOISE[0]})
    second = metrics(
        make_log, {"div": NOISE[1] + later, "model_loss": NOISE[1], "train/return": later}
    )
    found = {item["key"]: item for item in differences([first], [second])}
    assert set(found) == {"div", "model_loss"}
    assert found["div"]["step"] == 60_000  # its bin holds 60,000 and 61,000
    assert found["model_loss"]["step"] is None
    assert found["div"]["second"] == pytest.approx(20, abs=1)


def test_logs_that_meet_again_do_not_part(make_log):
    bump = np.where((STEPS > 20_000) & (STEPS < 50_000), 9.0, 0)
    logs = [metrics(make_log, {"kl": value}) for value in (STEPS * 1e-5, STEPS * 1e-5 + bump)]
    assert differences(logs[:1], logs[1:])[0]["step"] is None
    logs = [metrics(make_log, {"kl": value}) for value in (bump, bump + 1e-7)]
    assert differences(logs[:1], logs[1:])[0]["step"] is None


def test_seeds_that_scatter_hide_a_difference(make_log):
    def side(values):
        return [metrics(make_log, {"kl": np.full(101, value)}, seed=value) for value in values]

    assert differences(side([0, 10]), side([5, 20]))[0]["step"] is None
    assert differences(side([0, 1]), side([19, 20]))[0]["step"] == 0


def test_interquartile_mean_and_improvement_of_known_scores():
    _, runs = reliability.by_method({"t": {"a": [0.0, 100, 200, 900], "b": [1000.0] * 4}})
    assert reliability.probability_of_improvement(runs["b"], runs["a"]) == (1, 1, 1)
    estimate = reliability.interquartile_mean(runs["a"])
    assert estimate.value == pytest.approx(0.15)
    assert 0 <= estimate.low < 0.15 < estimate.high <= 0.9
    # Of three runs and one the bootstrap can be enumerated: 0.2, 0.3 and 0.7 beat 0.3 with a
    # probability of 0, 1/2 and 1, so that 27 resamples have means of k/6.
    runs, other = [np.array([0.2, 0.3, 0.7])], [np.array([0.3, 0.3])]
    assert reliability.probability_of_improvement(runs, other) == (0.5, 0, 1)


def test_the_metrics_are_rliables():
    runs, others = np.random.default_rng(0).integers(9, size=(2, 5, 3)) / 9
    ours = reliability.probability_of_improvement(runs.T, others.T).value
    assert ours == pytest.approx(rliable_metrics.probability_of_improvement(runs, others))
    assert reliability.interquartile_mean(runs.T).value == rliable_metrics.aggregate_iqm(runs)


def test_the_same_scores_have_the_same_intervals():
    runs, others = np.random.default_rng(0).uniform(size=(2, 5, 2))
    before = np.random.get_state()[1].tolist()
    for estimate in (
        lambda: reliability.interquartile_mean(runs.T),
        lambda: reliability.probability_of_improvement(runs.T, others.T),
    ):
        first = estimate()
        assert first == estimate() and first.low < first.value < first.high
    assert np.random.get_state()[1].tolist() == before  # it is the caller's


def test_only_tasks_that_all_methods_ran_count_and_all_runs_of_them():
    scores = {
        "one": {"a": [1000, 500, 0], "b": [100]},
        "two": {"a": [200, 300], "b": [250, 500]},
        "three": {"a": [1]},
        "four": {"a": [1], "b": []},
    }
    told = reliability.summarise(scores, against="b")
    assert told["tasks"] == ["one", "two"]
    a, b = told["methods"]
    assert (a["least"], a["most"], b["least"], b["most"]) == (2, 3, 1, 2)
    # Each task weighs alike: 0, 0, .2, .2, .2, .3, .3, .3, .5, .5, 1, 1, without three at each end.
    assert a["iqm"] == pytest.approx((2 * 0.2 + 3 * 0.3 + 0.5) / 6)
    assert b["iqm"] == pytest.approx((0.1 + 0.25) / 2)
    assert (a["low"] is None, b["low"] is None) == (False, True)
    (chance,) = told["improvement"]
    assert (chance["method"], chance["other"], chance["low"]) == ("a", "b", None)
    assert chance["probability"] == pytest.approx((2 / 3 + 1 / 4) / 2)


def level(seed, value):
    """A log of bird whose returns are all the same."""
    steps = np.arange(0, 100_001, 2000)
    curves = {"test/return": Curve(steps, np.full(steps.shape, float(value)))}
    return Log("dmc_cartpole_swingup", "bird", str(seed), Path(f"bird/{seed}"), curves)


def test_the_shade_is_a_standard_deviation_around_the_mean_over_seeds():
    table = bands([level(0, 10), level(1, 20), level(2, 60)], None, "std")
    assert table["mean"].to_numpy() == pytest.approx(30)
    deviation = np.std([10, 20, 60])
    assert table["low"].to_numpy() == pytest.approx(30 - deviation)
    assert table["high"].to_numpy() == pytest.approx(30 + deviation)
    assert set(table["seeds"]) == {3}


def test_the_confidence_interval_is_that_of_a_t_test():
    values = [10, 20, 60, 65]
    table = bands([level(seed, value) for seed, value in enumerate(values)], None, "ci")
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert table["low"].to_numpy() == pytest.approx(reference.low)
    assert table["high"].to_numpy() == pytest.approx(reference.high)
    assert table["mean"].to_numpy() == pytest.approx(np.mean(values))


@pytest.mark.parametrize("band", ["std", "ci"])
def test_one_seed_has_no_shade(band):
    full, short = level(0, 10), level(1, 20)
    half = {"test/return": Curve(*(axis[:20] for axis in short.curves["test/return"]))}
    short = Log(full.task, "bird", "1", short.path, half)
    table = bands([full, short], None, band).set_index("step")
    assert table.loc[100_000, ["low", "high", "std"]].isna().all()
    assert table.loc[10_000, ["low", "high"]].notna().all()
