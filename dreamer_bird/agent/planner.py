"""PlaNet's planner: the cross-entropy method, on sequences of actions tried in a world model."""

from collections.abc import Callable, Mapping
from functools import partial

import tensorflow as tf

from dreamer_bird.agent.distributions import OneHot, normal_noise, split_seed
from dreamer_bird.agent.layers import weights_read_once
from dreamer_bird.agent.networks import DenseDecoder
from dreamer_bird.agent.objectives import discount_weights
from dreamer_bird.agent.rssm import Carry, State, time_major, to_carry
from dreamer_bird.agent.world_model import WorldModel
from dreamer_bird.envs.spaces import Spec

# From J candidates for each of B environments `[B, J, H, A]` to their returns `[B, J]`.
Returns = Callable[[tf.Tensor], tf.Tensor]


class Planner(tf.Module):
    """Looks for the best actions anew at each step, and learns nothing.

    All environments of a batch get the same random numbers, so that each is planned for as if it
    were alone.
    """

    def __init__(self, settings: Mapping, spec: Spec, value: DenseDecoder | None = None):
        """Take the section `planner` of configs.yaml, the action space, and the value function
        that counts at the horizon, if one is to.
        """
        super().__init__("planner")
        self._settings, self._spec, self._value = settings, spec, value

    def act(self, model: WorldModel, state: State, seed: tf.Tensor) -> tf.Tensor:
        """Return the first actions `[B, A]` of the plans for states `[B, ...]` of a model."""
        noise_seed, search_seed = tf.unstack(split_seed(seed, 2))
        # For all iterations: to draw it takes a tenth of their time, and the actions are new.
        shape = self._settings["horizon"], self._settings["candidates"]
        noise = model.rssm.noise(shape, noise_seed)
        returns = partial(self._imagined_returns, model, to_carry(state), noise)
        with weights_read_once(model):
            mean = self.search(returns, tf.shape(state["deter"])[0], search_seed)[:, 0]
        return OneHot(tf.math.log(mean)).mode() if self._spec.discrete else mean

    def search(self, returns: Returns, batch: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the mean `[B, H, A]` of the best sequences of actions of the last iteration.

        Of discrete actions it is their probabilities.
        """
        settings = self._settings

        def refit(belief: tuple, seed: tf.Tensor) -> tuple:
            candidates = self._draw(*belief, seed)
            found = returns(candidates)
            found = tf.where(tf.math.is_finite(found), found, -float("inf"))
            best = tf.math.top_k(found, settings["elites"])
            elites = tf.gather(candidates, best.indices, axis=1, batch_dims=1)
            # NaN where returns are not finite: no action may look like a good one then.
            undefined = 0 * tf.reduce_sum(best.values, 1)[:, None, None]
            return tf.reduce_mean(elites, 1) + undefined, tf.math.reduce_std(elites, 1)

        shape, discrete = [batch, settings["horizon"], self._spec.actions], self._spec.discrete
        begin = tf.fill(shape, 1 / self._spec.actions if discrete else 0.0), tf.ones(shape)
        return tf.foldl(refit, split_seed(seed, settings["iterations"]), begin)[0]

    def _draw(self, mean: tf.Tensor, std: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return candidates `[B, J, H, A]`, of Gaussians in [-1, 1] or one-hot of probabilities."""
        shape = [self._settings["candidates"], *mean.shape[1:]]
        if not self._spec.discrete:
            candidates = mean[:, None] + std[:, None] * normal_noise(shape, seed)
            return tf.clip_by_value(candidates, -1, 1)
        scores = tf.math.log(mean[:, None]) + OneHot.noise(shape, seed)
        return tf.one_hot(tf.argmax(scores, -1), shape[-1])

    def _imagined_returns(
        self, model: WorldModel, state: Carry, noise: tf.Tensor, candidates: tf.Tensor
    ) -> tf.Tensor:
        """Return r_1 + g_1 r_2 + ... of a rollout of each candidate, `[B, J]`.

        `noise` `[H, J, S]` is that of the stochastic states. With a value function the value of the
        last state takes the place of its reward, which is a part of it.
        """
        count, horizon, actions = candidates.shape[1:]
        batch, rssm = tf.shape(candidates)[0], model.rssm

        def step(before: Carry, element: tuple) -> Carry:
            action, noise = element
            return rssm.prior_step(before, action, tf.tile(noise, [batch, 1]))

        sequences = time_major(tf.reshape(candidates, [-1, horizon, actions]))
        start = tuple(tf.repeat(x, count, 0) for x in state)
        feat = rssm.get_feat(rssm.from_carry(tf.scan(step, (sequences, noise), start)))
        reward = model.reward(feat).mode()
        if self._value:
            reward = tf.concat([reward[:-1], self._value(feat[-1:]).mode()], 0)
        total = tf.reduce_sum(discount_weights(model.discounts(feat)) * reward, 0)
        return tf.reshape(total, [-1, count])
