"""Lambda returns and discount weights; pure functions of time-major tensors."""

import tensorflow as tf


def lambda_return(
    reward: tf.Tensor, value: tf.Tensor, discount: tf.Tensor, lambda_: float
) -> tf.Tensor:
    """Return V_1..V_{H-1}, `[H-1, N]`, bootstrapped by the last value (Eq. 6).

    V_h = r_h + g_h * ((1 - lambda) * v_{h+1} + lambda * V_{h+1}), and V_H = v_H.

    Args:
        reward: r_1..r_{H-1}, `[H-1, N]`.
        value: v_1..v_H, `[H, N]`.
        discount: g_1..g_{H-1}, `[H-1, N]`.
        lambda_: weight of the longer returns, in [0, 1].
    """
    following = value[-1]
    returns = []
    for step in reversed(range(reward.shape[0])):
        target = (1 - lambda_) * value[step + 1] + lambda_ * following
        following = reward[step] + discount[step] * target
        returns.append(following)
    return tf.stack(returns[::-1])


def discount_weights(discount: tf.Tensor) -> tf.Tensor:
    """Return how much each step counts, the product of the discounts before it, `[H-1, N]`.

    d_1 = 1 and d_h = g_1 * ... * g_{h-1}, from g_1..g_{H-1} of shape `[H-1, N]`.
    """
    return tf.math.cumprod(discount, exclusive=True)
