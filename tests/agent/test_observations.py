"""State vectors beside or instead of images, images of other sizes, and discrete actions."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sizes import ACTIONS, BATCH, LENGTH

from dreamer_bird.agent.preprocessing import preprocess, scale_image, symlog
from dreamer_bird.envs.spaces import Spec

STATE = 5
STATE_SPEC = Spec({"state": (STATE,)}, ACTIONS)
BOTH_SPEC = Spec({"image": (32, 32, 3), "state": (STATE,)}, ACTIONS)
DISCRETE_SPEC = Spec({"state": (STATE,)}, 3, discrete=True)


def observations(spec, *shape):
    rng = np.random.default_rng(0)
    drawn = {
        key: rng.integers(0, 256, (*shape, *size), np.uint8)
        if key == "image"
        else 20 * rng.normal(size=(*shape, *size)).astype(np.float32)
        for key, size in spec.observation.items()
    }
    return {key: tf.constant(value) for key, value in drawn.items()}


def batch_of(spec):
    rng = np.random.default_rng(1)
    action = rng.uniform(-1, 1, (BATCH, LENGTH, spec.actions))
    if spec.discrete:
        action = np.eye(spec.actions)[rng.integers(spec.actions, size=(BATCH, LENGTH))]
    return observations(spec, BATCH, LENGTH) | {
        "action": tf.constant(action, tf.float32),
        "reward": tf.constant(rng.normal(size=(BATCH, LENGTH)), tf.float32),
        "discount": tf.ones([BATCH, LENGTH]),
    }


def test_images_are_scaled():
    image = tf.constant([[0, 51, 255]], tf.uint8)
    np.testing.assert_allclose(scale_image(image), [[-0.5, -0.3, 0.5]], atol=1e-6)


def test_symlog_tames_large_values_and_leaves_small_ones():
    x = tf.constant([0.0, 1e-3, -1e-3, np.e - 1, 1 - np.e**5])
    np.testing.assert_allclose(symlog(x), [0, 1e-3, -1e-3, 1, -5], rtol=1e-3)


def test_actions_and_rewards_are_left_alone():
    batch = batch_of(BOTH_SPEC)
    scaled = preprocess(batch)
    assert scaled.keys() == batch.keys()
    for key in ("action", "reward", "discount"):
        np.testing.assert_array_equal(scaled[key], batch[key])
    np.testing.assert_allclose(scaled["state"], symlog(batch["state"]))
    assert scaled["image"].dtype == tf.float32


def test_the_state_is_decoded_with_its_deviation(make_agent, seed):
    agent, batch = make_agent(STATE_SPEC, model__state_std=0.2), preprocess(batch_of(STATE_SPEC))
    loss, post, metrics = agent.world_model.loss(batch, seed)
    mean = agent.world_model.decoders["state"](agent.world_model.rssm.get_feat(post)).mean()
    log_prob = stats.norm.logpdf(batch["state"], mean, 0.2).sum(-1).mean()
    assert float(metrics["state_loss"]) == pytest.approx(-log_prob, rel=1e-4)
    assert "image_loss" not in metrics
    parts = sum(float(metrics[key]) for key in ("state_loss", "reward_loss", "kl"))
    assert float(loss) == pytest.approx(parts, rel=1e-5)


def test_the_embedding_of_both_is_one_after_the_other(make_agent):
    agent = make_agent(BOTH_SPEC)
    obs = preprocess(observations(BOTH_SPEC, 2))
    parts = [agent.world_model.encoders[key](obs) for key in ("image", "state")]
    np.testing.assert_array_equal(agent.world_model.embed(obs), np.concatenate(parts, -1))


@pytest.mark.parametrize("spec", [STATE_SPEC, BOTH_SPEC, DISCRETE_SPEC], ids=str)
def test_every_weight_learns(make_agent, seed, spec):
    agent = make_agent(spec)
    parts = agent.world_model, agent.actor_critic.actor, agent.actor_critic.value
    weights = [weight for part in parts for weight in part.trainable_variables]
    before = [weight.numpy() for weight in weights]
    metrics = agent.train_step(batch_of(spec), seed)
    assert all(np.isfinite(value) for value in metrics.values())
    changed = [(weight.numpy() != old).any() for weight, old in zip(weights, before, strict=True)]
    assert all(changed), [w.name for w, c in zip(weights, changed, strict=True) if not c]


def test_state_agents_have_no_convolutions(make_agent):
    names = make_agent(STATE_SPEC).named_variables()
    assert "state_encoder/h0/kernel" in names and "state_decoder/hout/kernel" in names
    assert not [name for name in names if name.startswith(("encoder", "decoder"))]


def test_discrete_actions_are_one_hot_and_replaced_as_often_as_asked(make_agent, seed):
    agent = make_agent(DISCRETE_SPEC, train__expl_amount=0.4)
    count = 3000
    obs = {"state": tf.zeros([count, STATE])}
    # A policy that always wants the first action.
    agent.actor_critic.actor.hout.bias.assign([30.0, 0.0, 0.0])
    action, _ = agent.policy(obs, agent.initial(count), seed, True)
    np.testing.assert_array_equal(np.sort(action, -1), np.tile([0, 0, 1], (count, 1)))
    shares = action.numpy().mean(0)
    np.testing.assert_allclose(shares, [0.6 + 0.4 / 3, 0.4 / 3, 0.4 / 3], atol=0.03)
    mode, _ = agent.policy(obs, agent.initial(count), seed, False)
    np.testing.assert_array_equal(mode, np.tile([1, 0, 0], (count, 1)))


def test_the_actor_learns_through_discrete_actions(make_agent, seed):
    agent = make_agent(DISCRETE_SPEC)
    model, start = agent.world_model, agent.world_model.rssm.initial(4)
    with tf.GradientTape() as tape:
        states, _ = model.imagine(agent.actor_critic.actor, start, 2, seed)
        reward = tf.reduce_sum(model.reward(model.rssm.get_feat(states)).mode())
    assert np.abs(tape.gradient(reward, agent.actor_critic.actor.hout.kernel)).max() > 0
