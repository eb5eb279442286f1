"""How an agent acts."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sizes import ACTIONS

from dreamer_bird.agent.preprocessing import preprocess


@pytest.fixture
def images():
    pixels = tf.random.stateless_uniform([16, 64, 64, 3], [0, 1], 0, 256, tf.int32)
    return {"image": tf.cast(pixels, tf.uint8)}


def test_initial_policy_state_is_zero(agent):
    latent, action = agent.initial(3)
    assert action.shape == (3, ACTIONS)
    assert latent["deter"].shape == (3, 16)
    assert not any(value.numpy().any() for value in (action, *latent.values()))


def test_evaluation_acts_with_the_mode(agent, images, seed):
    action, (latent, carried) = agent.policy(images, agent.initial(16), seed, False)
    again, _ = agent.policy(images, agent.initial(16), seed, False)
    np.testing.assert_array_equal(action, again)
    np.testing.assert_array_equal(action, carried)
    # The mode at the latent state itself: no exploration noise on top.
    dist = agent.actor_critic.actor(agent.world_model.rssm.get_feat(latent))
    mode = dist.mode(tf.random.split(seed, 3)[1])
    np.testing.assert_allclose(action, mode, atol=1e-6)
    assert np.abs(action).max() <= 1


def test_training_samples_and_explores(agent, images, seed):
    action, (latent, carried) = agent.policy(images, agent.initial(16), seed, True)
    np.testing.assert_array_equal(action, carried)
    dist = agent.actor_critic.actor(agent.world_model.rssm.get_feat(latent))
    noise = action - dist.sample(tf.random.split(seed, 3)[1])
    inside = np.abs(action) < 1
    assert inside.any() and (~inside).any()
    assert np.abs(action).max() == 1
    # What is not clipped is N(0, 0.3).
    assert 0.05 < noise.numpy()[inside].std() < 0.5
    other, _ = agent.policy(images, agent.initial(16), seed + 1, True)
    assert (action.numpy() != other.numpy()).any(-1).all()


def test_exploration_noise_has_its_standard_deviation(make_agent, seed):
    agent = make_agent(train__expl_amount=0.05, actor__init_std=0.01)
    images = {"image": tf.zeros([2000, 64, 64, 3], tf.uint8)}
    agent.world_model.embed = lambda obs: tf.zeros([2000, 128])  # the noise needs no images
    action, (latent, _) = agent.policy(images, agent.initial(2000), seed, True)
    dist = agent.actor_critic.actor(agent.world_model.rssm.get_feat(latent))
    noise = (action - dist.sample(tf.random.split(seed, 3)[1])).numpy()
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 0.01


def test_the_state_carries_latent_and_action(agent, images, seed):
    _, (latent, action) = agent.policy(images, agent.initial(16), seed, True)
    _, (after, _) = agent.policy(images, (latent, action), seed, True)
    rssm, embed = agent.world_model.rssm, agent.world_model.embed(preprocess(images))
    expected, _ = rssm.obs_step(latent, action, embed, seed)
    for key in ("deter", "mean", "std"):
        np.testing.assert_allclose(after[key], expected[key], atol=1e-5, err_msg=key)


def test_traced_policy_equals_eager(agent, images, seed):
    """Also after calls with another mode and another number of environments."""
    for training, count in ((True, 16), (False, 16), (True, 1), (False, 3)):
        arguments = ({"image": images["image"][:count]}, agent.initial(count), seed, training)
        traced, eager = agent._traced["policy"](*arguments), agent.policy(*arguments)
        np.testing.assert_allclose(traced[0], eager[0], atol=1e-4)
        np.testing.assert_allclose(traced[1][0]["deter"], eager[1][0]["deter"], atol=1e-5)


def test_policy_is_called_as_documented(agent):
    names = list(inspect.signature(agent.policy).parameters)
    assert names[-4:] == ["obs", "state", "seed", "training"]
