"""Open-loop predictions, against a loop over single steps of prior and posterior."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sizes import ACTIONS, BATCH

from dreamer_bird.agent.distributions import split_seed
from dreamer_bird.agent.preprocessing import scale_image
from dreamer_bird.agent.rssm import to_carry
from dreamer_bird.agent.world_model import IMAGE_STEPS
from dreamer_bird.training.diagnostics import ERROR_HORIZON, errors
from dreamer_bird.utils import seeds


def sequences(length):
    rng = np.random.default_rng(0)
    return {
        "image": tf.constant(rng.integers(0, 256, (BATCH, length, 64, 64, 3), dtype=np.uint8)),
        "action": tf.constant(rng.uniform(-1, 1, (BATCH, length, ACTIONS)), tf.float32),
        "reward": tf.constant(rng.normal(size=(BATCH, length)), tf.float32),
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
        state = model.rssm.from_carry(model.rssm._sample(model.rssm.obs2(x), deter, noise[t]))
        states.append(state)
    return states


def reference(model, batch, horizon, seed):
    """Step the prior from every start; the starts of one sequence share rows of noise."""
    post = posteriors(model, batch, seed)
    starts = batch["action"].shape[1] - horizon
    shape = [horizon, BATCH * starts]
    noise = model.rssm.noise(shape, tf.unstack(split_seed(seed, 2))[1], axis=1)
    # All starts of the first sequence, then all of the second.
    pairs = [(b, t) for b in range(BATCH) for t in range(starts)]
    state = {key: np.array([post[t][key][b] for b, t in pairs]) for key in post[0]}
    real = scale_image(batch["image"]).numpy().astype(np.float64)
    found = {key: [] for key in ("latent_error", "reward", "true_reward", "image", "guess")}
    confidence = 0
    for h in range(1, horizon + 1):
        state = model.rssm.from_carry(
            model.rssm.prior_step(
                to_carry(state),
                np.array([batch["action"][b, t + h] for b, t in pairs]),
                noise[h - 1],
            )
        )
        encoded = np.array([post[t + h]["mean"][b] for b, t in pairs])
        squares = (state["mean"].numpy().astype(np.float64) - encoded) ** 2
        feat = model.rssm.get_feat(state)
        images = np.array([real[b, t + h] for b, t in pairs])
        found["latent_error"].append(np.sqrt(squares.sum(-1)))
        found["reward"].append(model.reward(feat).mode())
        found["true_reward"].append([batch["reward"][b, t + h] for b, t in pairs])
        drawn = model.decoders["image"](feat).mode().numpy()
        for key, guess in (("image", drawn), ("guess", real.mean((0, 1)))):
            found[key].append(np.square(guess - images).sum((1, 2, 3)))
        confidence += stats.norm.logpdf(*(state[k] for k in ("stoch", "mean", "std"))).sum(-1)
    found = {key: np.transpose(value) for key, value in found.items()}
    steps = [step - 1 for step in IMAGE_STEPS if step <= horizon]
    images = {"image_error": found.pop("image")[:, steps], "image_guess": found.pop("guess")}
    images["image_guess"] = images["image_guess"][:, steps]
    return found | images | {"confidence": confidence}


@pytest.mark.parametrize(
    "length, horizon", [(2, 1), (10, 9), (10, 4), (ERROR_HORIZON + 4, ERROR_HORIZON)]
)
def test_against_single_steps(agent, seed, length, horizon):
    batch, model = sequences(length), agent.world_model
    scaled = batch | {"image": scale_image(batch["image"])}
    start, found = model.open_loop(scaled, horizon, seed)
    expected = reference(model, batch, horizon, seed)
    assert found.keys() == expected.keys()
    assert found["reward"].shape == (BATCH * (length - horizon), horizon)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-3, atol=1e-4, err_msg=key)
    first = posteriors(model, batch, seed)[0]
    np.testing.assert_allclose(start["deter"][0], first["deter"][0], atol=1e-5)


def test_it_is_a_function_of_the_seed(agent, seed):
    batch = sequences(4)
    found = agent.open_loop(batch, 3, seed)
    again, other = (agent.open_loop(batch, 3, s) for s in (seed, seeds.stateless(0, "test", 1)))
    for key in ("latent_error", "imagined_reward", "confidence"):
        np.testing.assert_array_equal(found[key], again[key])
        assert (found[key].numpy() != other[key].numpy()).all()


def test_what_the_policy_would_earn_is_imagined_from_the_same_states(agent, seed, monkeypatch):
    """It is what is predicted, where the real actions are the policy's; without noise."""
    actor, rssm = agent.actor_critic.actor, agent.world_model.rssm
    monkeypatch.setattr(rssm, "noise", lambda shape, *_, **__: tf.zeros([*shape, rssm.stoch_size]))
    actor.hout.kernel.assign(tf.zeros_like(actor.hout.kernel))
    actor.hout.bias.assign([0.5, -0.3, -40.0, -40.0])  # means, and deviations of next to nothing
    action = tf.tanh([0.5, -0.3])
    for real, alike in ((action, True), (-action, False)):
        batch = sequences(5) | {"action": tf.ones([BATCH, 5, 1]) * real}
        found = type(agent).open_loop.python_function(agent, batch, 4, seed)
        assert found["imagined_reward"].shape == (BATCH, 4)
        error = np.abs(found["imagined_reward"] - found["reward"]).max()
        assert (error < 1e-3) == alike


def test_a_prior_that_knows_what_the_posterior_does_has_no_error(agent, seed):
    """Both predict the same constant: neither looks at its input."""
    rssm = agent.world_model.rssm
    for layer in (rssm.img3, rssm.obs2):
        layer.kernel.assign(tf.zeros_like(layer.kernel))
        layer.bias.assign(tf.range(16.0) / 10)
    latent_error = agent.open_loop(sequences(4), 3, seed)["latent_error"]
    np.testing.assert_allclose(latent_error, 0, atol=1e-6)
    rssm.obs2.bias.assign_add([3.0, 4.0, *[0.0] * 14])  # the first two means
    latent_error = agent.open_loop(sequences(4), 3, seed)["latent_error"]
    np.testing.assert_allclose(latent_error, 5, rtol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_confidence_is_right_or_wrong_about_the_error(agent, seed, sign):
    """The prior errs by what it sees, and is less sure, or surer, the more it errs."""
    rssm, sizes = agent.world_model.rssm, [8, 8]
    rssm.obs2.kernel.assign(tf.zeros_like(rssm.obs2.kernel))  # the posterior's mean is 0
    first = np.random.default_rng(0).normal(size=rssm.img3.kernel.shape[0])
    columns = np.repeat(np.array([1.0, sign]), sizes)  # means, and deviations before the softplus
    rssm.img3.kernel.assign(5 * np.abs(first)[:, None] * columns)
    rssm.img2.bias.assign(tf.zeros_like(rssm.img2.bias) + 0.1)
    found = {
        key: value.numpy()
        for key, value in agent.open_loop(sequences(35), ERROR_HORIZON, seed).items()
    }
    correlation = errors(found)["confidence_correlation"]
    assert -sign * correlation > 0.3
