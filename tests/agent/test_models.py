"""Code written against Dreamer's models runs when one line changes: what it imports them from."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.agent import models  # Dreamer: import models

B, T, A = 2, 5, 3


class Dreamer(tf.Module):
    """The calls of Dreamer's agent, as it makes them."""

    def __init__(self, units=16, act=tf.nn.elu, cnn_act=tf.nn.relu):
        super().__init__()
        self._encode = models.ConvEncoder(4, cnn_act)
        self._dynamics = models.RSSM(6, 16, 16)
        self._decode = models.ConvDecoder(4, cnn_act)
        self._reward = models.DenseDecoder((), 2, units, act=act)
        self._pcont = models.DenseDecoder((), 3, units, "binary", act=act)
        self._value = models.DenseDecoder((), 3, units, act=act)
        self._actor = models.ActionDecoder(
            A, 4, units, "tanh_normal", init_std=5.0, act=act, min_std=1e-4, mean_scale=5
        )

    def losses(self, data):
        embed = self._encode(data)
        post, prior = self._dynamics.observe(embed, data["action"])
        feat = self._dynamics.get_feat(post)
        prior_dist, post_dist = map(self._dynamics.get_dist, (prior, post))
        likes = [
            self._decode(feat).log_prob(data["image"]),
            self._reward(feat).log_prob(data["reward"]),
            self._pcont(feat).log_prob(0.99 * tf.ones([B, T])),
        ]
        div = tf.reduce_mean(post_dist.kl_divergence(prior_dist))
        model_loss = div - sum(map(tf.reduce_mean, likes))
        state = {key: tf.reshape(value, [B * T, -1]) for key, value in post.items()}
        for _ in range(3):
            action = self._actor(tf.stop_gradient(self._dynamics.get_feat(state))).sample()
            state = self._dynamics.img_step(state, action)
        imagined = self._dynamics.get_feat(state)
        return model_loss, -tf.reduce_mean(self._value(imagined).mode())

    def policy(self, obs, state=None):
        latent, action = state or (self._dynamics.initial(B), tf.zeros([B, A]))
        latent, _ = self._dynamics.obs_step(latent, action, self._encode(obs))
        return self._actor(self._dynamics.get_feat(latent)).mode(), latent


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    shapes = {"image": (B, T, 64, 64, 3), "action": (B, T, A), "reward": (B, T)}
    draws = {key: rng.uniform(-0.5, 0.5, shape) for key, shape in shapes.items()}
    return {key: tf.constant(value, tf.float32) for key, value in draws.items()}


def test_an_agent_of_dreamers_models_learns_and_acts(data):
    agent = Dreamer()
    with tf.GradientTape(persistent=True) as tape:
        model_loss, actor_loss = agent.losses(data)
    model = agent._encode, agent._dynamics, agent._decode, agent._reward, agent._pcont
    for loss, parts in ((model_loss, model), (actor_loss, (agent._actor,))):
        for part in parts:
            for gradient in tape.gradient(loss, part.trainable_variables):
                assert np.abs(gradient).max() > 0
    action, latent = agent.policy({"image": data["image"][:, 0]})
    assert action.shape == (B, A) and np.abs(action).max() <= 1
    assert set(latent) == {"mean", "std", "stoch", "deter"}
    assert agent._encode({"image": data["image"]}).shape == (B, T, 32 * 4)
