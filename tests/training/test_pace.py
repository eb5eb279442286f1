"""How fast a run is and what is left of it, with clocks that are made up."""

import numpy as np
import pytest

from dreamer_bird.training.pace import Pace, clock

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
