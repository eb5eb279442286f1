"""The three actor objectives, and the losses that they share.

Times of one imagined rollout of H steps; the start state s_0 is the posterior of a real step:

    state     s_0  --a_0-->  s_1  --a_1-->  ...  s_{H-1}  --a_{H-1}-->  s_H
    entropy   e_0            e_1                 e_{H-1}
    reward                   r_1                 r_{H-1}                r_H
    value                    v_1                 v_{H-1}                v_H
    return                   V_1                 V_{H-1}   (bootstrapped by v_H)

Equation numbers are those of the BIRD paper (NeurIPS 2020).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from dreamer_bird.agent.replicas import batch_mean


class Imagined(NamedTuple):
    """What a batch of N imagined rollouts offers to the objectives, float32 and time-major."""

    start_weight: tf.Tensor  # of each rollout, as `start_weights` returns it, [N]
    reward: tf.Tensor  # r_1..r_H, [H, N]
    value: tf.Tensor  # v_1..v_H, [H, N]
    discount: tf.Tensor  # g_1..g_H, [H, N]
    entropy: tf.Tensor  # of the policy at s_0..s_{H-1}, [H, N]; s_0 is a real state
    log_prob: tf.Tensor  # log p(z_h | prior_h) of s_1..s_H, [H, N]
    gamma: float  # the discount of a state that is certainly not terminal


class Terms(NamedTuple):
    """Where the variants differ."""

    reward: tf.Tensor  # reward used in V, [H-1, N]
    weight: tf.Tensor  # weight of a rollout, [N] or a scalar
    bonus: tf.Tensor  # added to what the actor maximises, a scalar


def dreamer(imagined: Imagined, alpha: float, confidence_clip: float) -> Terms:
    """Return the plain value expansion (Eq. 6, 7)."""
    return Terms(imagined.reward[:-1], tf.ones([]), tf.zeros([]))


def bird(imagined: Imagined, alpha: float, confidence_clip: float) -> Terms:
    """Return rollouts weighted by confidence, and the policy entropy at real states (Eq. 8-10)."""
    weight = confidence_weights(imagined.log_prob, imagined.start_weight, confidence_clip)
    bonus = alpha * tf.reduce_mean(imagined.start_weight * imagined.entropy[0])
    return Terms(imagined.reward[:-1], weight, bonus)


def soft_bird(imagined: Imagined, alpha: float, confidence_clip: float) -> Terms:
    """Return rewards with the policy entropy at imagined states added (Eq. 11, 12).

    The entropy is scaled by the predicted probability that the state is not terminal: nobody acts
    in a state that ends the episode.
    """
    alive = imagined.discount[:-1] / imagined.gamma
    soft_reward = imagined.reward[:-1] + alpha * alive * imagined.entropy[1:]
    return Terms(soft_reward, tf.ones([]), tf.zeros([]))


OBJECTIVES: dict[str, Callable[[Imagined, float, float], Terms]] = {
    "dreamer": dreamer,
    "bird": bird,
    "soft_bird": soft_bird,
}


def start_weights(discount: tf.Tensor) -> tf.Tensor:
    """Return the weight of each rollout in means over the batch, `[N]`; their mean is 1.

    From the real discounts of s_0 `[N]`, 0 where it is terminal: nothing follows such a state, so a
    rollout that starts there has weight 0.
    """
    return discount / tf.maximum(batch_mean(tf.reduce_mean(discount)), 1e-8)


def confidence_weights(log_prob: tf.Tensor, start_weight: tf.Tensor, clip: float) -> tf.Tensor:
    """Return w of Eq. 10, `[N]`: 1 plus the z-score of each rollout's log probability, clipped.

    The range is [1 - clip, 1 + clip]. The z-score is of the rollouts that count, weighed by their
    `start_weight` `[N]`; the others have w = 1. No gradient flows through w.
    """
    confidence = tf.stop_gradient(tf.reduce_sum(log_prob, 0))
    centred = confidence - batch_mean(tf.reduce_mean(start_weight * confidence))
    # Centre twice: float32 rounding of the first mean can exceed 1e-4, the least scale below.
    centred -= batch_mean(tf.reduce_mean(start_weight * centred))
    # A batch whose rollouts are all equally likely gets weight 1, not a division by zero.
    scale = tf.math.rsqrt(batch_mean(tf.reduce_mean(start_weight * tf.square(centred))) + 1e-8)
    weights = tf.clip_by_value(1 + centred * scale, 1 - clip, 1 + clip)
    return tf.where(start_weight > 0, weights, 1.0)


def actor_value_losses(
    imagined: Imagined, terms: Terms, lambda_: float, weight_value_loss: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the losses of actor (Eq. 10) and value, both scalars.

    actor_loss = -mean(w * d * V) - bonus  and  value_loss = -mean(u * d * log N(V; v, 1)), with
    w the weight of a rollout, d its start weight times the discounts since the start, and u = w
    if `weight_value_loss`, else 1.
    """
    discount = imagined.discount[:-1]
    returns = lambda_return(terms.reward, imagined.value, discount, lambda_)
    # The policy must not learn to end episodes earlier or later to change these weights.
    decay = imagined.start_weight * tf.stop_gradient(discount_weights(discount))
    actor_loss = -tf.reduce_mean(terms.weight * decay * returns) - terms.bonus
    # The value moves towards the return, not the return towards the value.
    error = imagined.value[:-1] - tf.stop_gradient(returns)
    negative_log_prob = 0.5 * (tf.square(error) + math.log(2 * math.pi))
    value_weight = terms.weight if weight_value_loss else 1.0
    value_loss = tf.reduce_mean(value_weight * decay * negative_log_prob)
    return actor_loss, value_loss


def lambda_return(
    reward: tf.Tensor, value: tf.Tensor, discount: tf.Tensor, lambda_: float
) -> tf.Tensor:
    """Return V_1..V_{H-1}, `[H-1, N]`, bootstrapped by the last value (Eq. 6).

    V_h = r_h + g_h * ((1 - lambda) * v_{h+1} + lambda * V_{h+1}), and V_H = v_H.

    Takes r_1..r_{H-1} and g_1..g_{H-1}, `[H-1, N]`, and v_1..v_H, `[H, N]`.
    """
    one_step, longer = reward + discount * (1 - lambda_) * value[1:], discount * lambda_
    following = value[-1]
    returns = []
    for now, factor in zip(tf.unstack(one_step)[::-1], tf.unstack(longer)[::-1], strict=True):
        following = now + factor * following
        returns.append(following)
    return tf.stack(returns[::-1])


def discount_weights(discount: tf.Tensor) -> tf.Tensor:
    """Return how much each step counts, the product of the discounts before it, `[H-1, N]`.

    d_1 = 1 and d_h = g_1 * ... * g_{h-1}, from g_1..g_{H-1} of shape `[H-1, N]`.
    """
    return tf.math.cumprod(discount, exclusive=True)
