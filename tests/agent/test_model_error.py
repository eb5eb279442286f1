"""The model error, against a loop over single steps of prior and posterior."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from sizes import ACTIONS, BATCH

from dreamer_bird.agent.distributions import split_seed
from dreamer_bird.agent.preprocessing import scale_image
from dreamer_bird.agent.rssm import carry
from dreamer_bird.agent.world_model import ERROR_HORIZON
from dreamer_bird.config import load
from dreamer_bird.training.diagnostics import Diagnostics
from dreamer_bird.utils import seeds


def sequences(length):
    rng = np.random.default_rng(0)
    return {
        "image": tf.constant(rng.integers(0, 256, (BATCH, length, 64, 64, 3), dtype=np.uint8)),
        "action": tf.constant(rng.uniform(-1, 1, (BATCH, length, ACTIONS)), tf.float32),
    }


def posteriors(model, batch, seed):
    """Encode a batch one image at a time, with the seeds that `observe` gives its steps."""
    length = batch["action"].shape[1]
    embed = model.embed({"image": scale_image(batch["image"])})
    seen, _ = tf.unstack(split_seed(seed, 2))
    noise = model.rssm.noise([length, BATCH], tf.unstack(split_seed(seen, 2))[0], axis=1)
    states, state = [], model.rssm.initial(BATCH)
    for t in range(length):
        deter = model.rssm.img_step(state, batch["action"][:, t], seed)["deter"]
        x = model.rssm.obs1(tf.concat([deter, embed[:, t]], -1))
        state = model.rssm.state(model.rssm._sample(model.rssm.obs2(x), deter, noise[t]))
        states.append(state)
    return states


def reference(model, batch, horizon, seed):
    """Step the prior from every start; the starts of one sequence share rows of noise."""
    post = posteriors(model, batch, seed)
    starts = batch["action"].shape[1] - horizon
    shape = [horizon, BATCH * starts]
    noise = model.rssm.noise(shape, tf.unstack(split_seed(seed, 2))[1], axis=1)
    # All starts of the first sequence, then all of the second.
    state = {
        key: np.concatenate([[post[t][key][b] for t in range(starts)] for b in range(BATCH)])
        for key in post[0]
    }
    errors = []
    for h in range(1, horizon + 1):
        pairs = [(b, t) for b in range(BATCH) for t in range(starts)]
        action = np.array([batch["action"][b, t + h] for b, t in pairs])
        state = model.rssm.state(model.rssm.prior_step(carry(state), action, noise[h - 1]))
        encoded = np.array([post[t + h]["mean"][b] for b, t in pairs])
        squares = (state["mean"].numpy().astype(np.float64) - encoded) ** 2
        errors.append(np.sqrt(squares.sum(-1)).mean())
    return np.array(errors)


@pytest.mark.parametrize("length, horizon", [(2, 1), (10, 9), (ERROR_HORIZON + 4, ERROR_HORIZON)])
def test_against_single_steps(agent, seed, length, horizon):
    batch = sequences(length)
    errors = agent.model_error(batch, seed)
    assert errors.shape == (horizon,)
    expected = reference(agent.world_model, batch, horizon, seed)
    np.testing.assert_allclose(errors, expected, rtol=1e-4)


def test_it_is_a_function_of_the_seed(agent, seed):
    batch = sequences(4)
    errors = agent.model_error(batch, seed).numpy()
    np.testing.assert_array_equal(errors, agent.model_error(batch, seed))
    other = agent.model_error(batch, seeds.stateless(0, "test", 1)).numpy()
    assert (errors != other).all()


def test_a_prior_that_knows_what_the_posterior_does_has_no_error(agent, seed):
    """Both predict the same constant: neither looks at its input."""
    rssm = agent.world_model.rssm
    for layer in (rssm.img3, rssm.obs2):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
        layer.bias.assign(tf.range(16.0) / 10)
    np.testing.assert_allclose(agent.model_error(sequences(4), seed), 0, atol=1e-6)
    rssm.obs2.bias.assign_add([3.0, 4.0, *[0.0] * 14])  # the first two means
    np.testing.assert_allclose(agent.model_error(sequences(4), seed), 5, rtol=1e-6)


def test_the_mean_is_logged_and_each_horizon_in_tensorboard_alone():
    """At one step, whatever else was drawn before."""
    logged, drawn = [], []

    def model_error(batch, seed):
        drawn.append((batch, tuple(seed)))
        return tf.constant([1.0, 2.0, 6.0])

    logger = SimpleNamespace(
        scalars=lambda *line: logged.append(("scalars", *line)),
        tensorboard=lambda *line: logged.append(("tensorboard", *line)),
    )
    agent = SimpleNamespace(model_error=model_error)
    replay = SimpleNamespace(sample=lambda size, rng: (size, rng.integers(2**31)))
    config = load({"seed": 0, "replay.batch": 7})
    diagnostics = Diagnostics(config, agent, None, replay, lambda: None)
    for step in (1000, 1000, 2000):
        diagnostics._log_model_error(step, logger)
    assert logged[0] == ("scalars", 1000, {"model_error": 3.0})
    ahead = {"model_error/01": 1.0, "model_error/02": 2.0, "model_error/03": 6.0}
    assert logged[1] == ("tensorboard", 1000, ahead)
    assert drawn[0][0][0] == 7
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[2][0] and drawn[0][1] != drawn[2][1]
