import numpy as np
import pytest

from dreamer_bird.training.watchdog import DivergedError, Streak, culprit


def test_the_culprit_is_the_first_that_was_computed():
    metrics = {"image_loss": 1.0, "model_loss": np.inf, "value_loss": np.nan}
    assert culprit(metrics) == "model_loss"
    assert culprit({"image_loss": 1.0}) is None


def test_a_streak_ends_the_run_at_its_limit_and_names_what_began_it():
    streak = Streak("updates", limit=3)
    for of in ("value_loss", None, "model_loss", "actor_loss"):
        streak.count(of)
    assert streak.to_save() == (2, "model_loss")
    with pytest.raises(DivergedError, match=r"3 updates in a row .* model_loss first"):
        streak.count("value_loss")


def test_a_streak_goes_on_where_a_checkpoint_left_it():
    streak = Streak("actions", limit=2)
    streak.restore([1, "the action at agent step 7"])  # as JSON returns it
    with pytest.raises(DivergedError, match=r"2 actions .* agent step 7 first"):
        streak.count("the action at agent step 8")
