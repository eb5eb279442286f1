"""What is told of a run, how fast it is and what is left of it, with clocks that are made up."""

from types import SimpleNamespace

import numpy as np
import pytest

from dreamer_bird.config import load
from dreamer_bird.training import reporter as reporter_module
from dreamer_bird.training.reporter import Pace, Reporter, clock, means

EVERY, WINDOW, STEPS = 1000, 10_000, 1_000_000
BLOCK, EVALUATION = 50.0, 150.0  # seconds of an episode with its updates, and of an evaluation
NIGHT = 30_000.0
USUAL = WINDOW / (WINDOW / EVERY * BLOCK + EVALUATION)  # steps a second: 15.4


def paced(rounds, envs=1, start=5000, pause=None, window=WINDOW):
    """A pace that has seen a block of updates at `start` and more after each round of episodes.

    Returned with the step and the time at the end. A night passes before the round `pause`.
    """
    pace, now, step, next_eval = Pace(STEPS, window), 0.0, start, 0
    for number in range(rounds + 1):
        step += number and envs * EVERY
        now += NIGHT * (number == pause)
        for _ in range(envs if number else 1):
            now += BLOCK
            pace.block(step, now)
        end = now
        if step >= next_eval:
            now += EVALUATION
            next_eval = (step // WINDOW + 1) * WINDOW
    return pace, step, end


def test_nothing_is_promised_before_an_episode_was_trained_on():
    assert Pace(STEPS, WINDOW).left(1000, 60) is None
    pace, step, now = paced(0)
    for seconds in (1, 2, 3):  # more blocks at the same step
        pace.block(step, now + seconds)
    assert pace.speed is None and pace.left(step, now + 3) is None


@pytest.mark.parametrize("rounds", [15, 16, 24, 50, 500])
def test_the_window_holds_its_share_of_evaluations_wherever_it_begins(rounds):
    pace, step, now = paced(rounds)
    assert pace.speed == pytest.approx(USUAL)
    assert pace.left(step, now) == pytest.approx((STEPS - step) / USUAL)


def test_what_is_older_than_the_window_does_not_count():
    pace, step, now = paced(100)
    for _ in range(10):
        step, now = step + EVERY, now + 2 * BLOCK
        pace.block(step, now)
    assert pace.speed == pytest.approx(EVERY / (2 * BLOCK))


def test_the_updates_of_an_episode_that_was_just_played_are_still_to_come():
    pace, step, now = paced(20)
    left = pace.left(step, now)
    assert pace.left(step + EVERY, now + 5) == pytest.approx(left - 5)
    pace, step, now = paced(20, start=STEPS - 21 * EVERY)  # one episode before the end
    assert pace.left(STEPS, now + 5) == pytest.approx(EVERY / USUAL - 5)


def test_the_episodes_of_several_environments_promise_the_same():
    pace, step, now = paced(10, envs=4)
    assert pace.speed == pytest.approx(USUAL, rel=0.15)  # one evaluation or two in 20,000 steps
    lines = [pace.left(step + number * EVERY, now + 5) for number in (1, 2, 3, 4)]
    assert lines == pytest.approx([(STEPS - step) / pace.speed - 5] * 4)


@pytest.mark.parametrize("pause", [None, 19, 20])
def test_where_an_interval_is_longer_than_the_window_five_are_looked_at(pause):
    pace, *_ = paced(20, envs=16, pause=pause)
    assert pace.speed == pytest.approx(16 * EVERY / (16 * BLOCK + EVALUATION))


@pytest.mark.parametrize("since", [0, 1, 8, 9, 10])
def test_a_pause_is_left_out(since):
    pace, step, now = paced(60, pause=60 - since)
    assert pace.speed == pytest.approx(USUAL, rel=0.1)  # with the same evaluation in fewer steps
    assert pace.left(step, now) == pytest.approx((STEPS - step) / USUAL, rel=0.1)


@pytest.mark.parametrize("pause", [1, 2])
def test_the_second_interval_already_tells_a_pause_in_either(pause):
    pace = Pace(STEPS, WINDOW)
    for number, now in enumerate(np.cumsum([0, BLOCK, BLOCK])):
        pace.block(number * EVERY, now + NIGHT * (number >= pause))
    assert pace.speed == pytest.approx(EVERY / BLOCK)


def test_a_pause_since_the_last_block_brings_the_end_no_nearer():
    pace, step, now = paced(60)
    assert pace.left(step, now + 1e6) == (STEPS - step) / pace.speed
    assert pace.left(STEPS + 10, now + 1e6) == 0


def test_a_resumed_run_is_timed_from_its_first_block_on():
    assert paced(0, start=500_000)[0].speed is None
    pace, step, now = paced(1, start=500_000)
    assert pace.speed == EVERY / (EVALUATION + BLOCK)
    assert pace.left(step, now) == (STEPS - 501_000) / pace.speed


def test_a_run_that_never_evaluates_looks_back_on_a_thousand_intervals():
    pace, *_ = paced(1500, window=10**12)
    assert len(pace._marks) == 1001
    assert pace.speed == pytest.approx(USUAL)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0:00:00"), (43_390, "12:03:10"), (360_000, "100:00:00")]
)
def test_a_time_in_words(seconds, text):
    assert clock(seconds) == text


class Told:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.lines, self.shown = [], []

    def scalars(self, step, values):
        self.lines.append({"step": step} | values)

    def progress(self, step, text):
        self.shown.append(text)


@pytest.fixture
def now(monkeypatch):
    """The time, as whoever reports it reads it."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(reporter_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


EPISODE = {"reward": np.array([0, 1, 30.2])}
HISTORY = {"model_loss": np.ones(2), "skipped_updates": np.zeros(2)}


def test_means_are_of_the_updates_in_which_a_metric_was_finite():
    told = means({"loss": np.array([1, np.nan, 3, np.inf]), "none": np.array([np.nan])})
    assert told["loss"] == 2 and np.isnan(told["none"])


def test_lines_tell_random_episodes_and_promise_nothing_before_updates_were_timed(now):
    told = Told()
    prefill = {"train.prefill": 1, "train.prefill_steps": 2500}
    reporter = Reporter(told, load({"steps": 10_000, "train.eval_every": 5000, **prefill}), step=0)
    for number in (1, 2, 3):
        reporter.episode("train", 1000 * number, number, EPISODE, random=True)
    now.seconds += 60
    reporter.block(3000, HISTORY, 0, {})
    for number in (4, 5):
        reporter.episode("train", 1000 * number, number, EPISODE)
        now.seconds += 50
        reporter.block(1000 * number, HISTORY, 0, {})
    assert told.shown == [
        "step 1,000  random episode 1 of 1  return 31.2",
        "step 2,000  random episode 2, until step 2,500  return 31.2",
        "step 3,000  random episode 3  return 31.2",  # until they hold a sequence
        "step 4,000  episode 4  return 31.2",
        "step 5,000  episode 5  return 31.2  20.0 steps/s  0:05:00 left",
    ]


def test_a_block_has_the_steps_a_second_since_the_last_that_had_them(now):
    told = Told()
    reporter = Reporter(told, load({}), step=2000)  # a run that goes on within its blocks
    for step, seconds in [(2000, 7), (4000, 13), (4000, 50), (4000, 50), (6000, 100), (7000, 40)]:
        now.seconds += seconds
        reporter.block(step, HISTORY, 0, {})
    speeds = [line.get("fps") for line in told.lines]
    assert speeds == [None, 2000 / 20, None, None, 2000 / 200, 1000 / 40]
    assert all(line["model_loss"] == 1 for line in told.lines)
