"""Figures of open-loop predictions, and which sequences they are of."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.config import load
from dreamer_bird.training.diagnostics import NEW_STEPS, Diagnostics, errors


def predictions(count=50, horizon=3):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(count, horizon))
    return {
        "latent_error": rng.uniform(1, 2, (count, horizon)),
        "true_reward": truth,
        "reward": truth.copy(),
        "confidence": rng.normal(size=count),
    }


def test_errors_are_shares_of_those_of_guessing():
    found = predictions()
    assert errors(found)["reward_error"] == 0
    found["reward"][:] = found["true_reward"].mean()
    found |= {"image_error": np.full((50, 2), 3.0), "image_guess": np.full((50, 2), 4.0)}
    figures = errors(found)
    assert figures["reward_error"] == pytest.approx(1)
    assert figures["image_error"] == pytest.approx(0.75)
    assert figures["model_error"] == pytest.approx(found["latent_error"].mean())


def test_the_confidence_correlation_is_of_ranks():
    found = predictions()
    found["confidence"] = np.exp(-5 * found["latent_error"].mean(1))
    assert errors(found)["confidence_correlation"] == pytest.approx(-1)
    found["confidence"] = found["latent_error"].mean(1) ** 3
    assert errors(found)["confidence_correlation"] == pytest.approx(1)
    assert abs(errors(predictions(2000))["confidence_correlation"]) < 0.1


def test_what_is_undefined_is_left_out():
    found = predictions()
    found["true_reward"][:] = 1
    found["confidence"][:] = 1
    assert errors(found).keys() == {"model_error"}


def test_learned_and_new_sequences_are_logged_in_one_line():
    """At one step, whatever else was drawn before."""
    logged, asked = [], []

    def open_loop(batch, horizon, seed):
        asked.append(({key: np.shape(value) for key, value in batch.items()}, horizon, tuple(seed)))
        count = len(batch["reward"])
        found = predictions(max(2, 4 * count)) | {"imagined_reward": np.full((2, 3), 2.0)}
        found["latent_error"][:] = [1.0, 2.0, 6.0]
        return {key: tf.constant(value) for key, value in found.items()}

    logger = SimpleNamespace(
        scalars=lambda *line: logged.append(line), beside=lambda *line: logged.append(line)
    )
    replay = SimpleNamespace(sample=lambda size, rng: {"reward": rng.normal(size=(size, 20))})
    config = load({"seed": 0, "replay.batch": 7, "replay.length": 20})
    agent = SimpleNamespace(open_loop=open_loop)
    diagnostics = Diagnostics(config, agent, replay, None)
    for step, length in ((1000, 55), (1000, 19), (2000, NEW_STEPS + 100)):
        diagnostics._log_predictions(step, {"reward": np.zeros(length)}, logger)
    (step, figures), (_, ahead), (_, short), *_ = logged
    assert step == 1000 and figures["model_error"] == figures["model_error_new"] == 3.0
    assert figures["imagined_return"] == 6.0 and "reward_error_new" in figures
    assert figures["followed_return"] == pytest.approx(predictions(4)["true_reward"].sum(1).mean())
    assert ahead == {"model_error/01": 1.0, "model_error/02": 2.0, "model_error/03": 6.0}
    assert "model_error" in short and "model_error_new" not in short
    learned, new, again, other, longest = asked
    assert (learned[0], new[0]) == ({"reward": (7, 20)}, {"reward": (1, 40)})
    assert learned == again and learned[2] != other[2]
    assert {horizon for _, horizon, _ in asked} == {15}
    diagnostics._config = load({"replay.length": 10})  # no more can be predicted of its sequences
    diagnostics._log_predictions(1000, {"reward": np.zeros(55)}, logger)
    assert [horizon for _, horizon, _ in asked[-2:]] == [9, 9]
    assert longest[0] == {"reward": (1, NEW_STEPS)}
    diagnostics._config = load({"replay.length": NEW_STEPS + 100, "env.action_repeat": 1})
    diagnostics._log_predictions(1000, {"reward": np.zeros(2 * NEW_STEPS)}, logger)
    assert asked[-1][0] == {"reward": (1, NEW_STEPS + 100)}
