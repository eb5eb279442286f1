import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.agent.objectives import discount_weights, lambda_return

H, N = 7, 5


@pytest.fixture
def imagined():
    """r_1..r_{H-1}, v_1..v_H and g_1..g_{H-1}; every discount differs, one is zero."""
    rng = np.random.default_rng(0)
    discount = rng.uniform(0.5, 1, (H - 1, N))
    discount[3, 2] = 0
    return rng.normal(size=(H - 1, N)), rng.normal(size=(H, N)), discount


def k_step_return(reward, value, discount, h, k):
    """The discounted sum of k rewards from step h on, then the value."""
    total, product = 0, 1
    for step in range(h, h + k):
        total = total + product * reward[step]
        product = product * discount[step]
    return total + product * value[h + k]


def brute_force(reward, value, discount, lambda_):
    """The definition: an exponentially weighted sum of all k-step returns."""
    returns = []
    for h in range(H - 1):
        longest = H - 1 - h
        total = lambda_ ** (longest - 1) * k_step_return(reward, value, discount, h, longest)
        for k in range(1, longest):
            weight = (1 - lambda_) * lambda_ ** (k - 1)
            total = total + weight * k_step_return(reward, value, discount, h, k)
        returns.append(total)
    return np.array(returns)


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
def test_lambda_return_is_the_weighted_sum_of_k_step_returns(imagined, lambda_):
    returns = lambda_return(*map(tf.constant, imagined), lambda_)
    np.testing.assert_allclose(returns, brute_force(*imagined, lambda_), rtol=1e-12)


def test_lambda_zero_looks_one_step_ahead(imagined):
    reward, value, discount = imagined
    returns = lambda_return(*map(tf.constant, imagined), 0.0)
    np.testing.assert_allclose(returns, reward + discount * value[1:], rtol=1e-12)


def test_lambda_one_uses_no_value_but_the_last(imagined):
    reward, value, discount = map(tf.constant, imagined)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(lambda_return(reward, value, discount, 1.0))
    gradient = tape.gradient(total, value).numpy()
    assert not gradient[:-1].any()
    assert gradient[-1].all(where=discount.numpy().all(0))


def test_discount_zero_cuts_off_the_future(imagined):
    reward, _, _ = imagined
    returns = lambda_return(*map(tf.constant, imagined), 0.95)
    assert returns[3, 2] == reward[3, 2]


def test_gradients_reach_every_reward():
    reward, value, discount = tf.zeros([2, 1]), tf.zeros([3, 1]), tf.constant([[0.5], [0.25]])
    with tf.GradientTape() as tape:
        tape.watch(reward)
        first = lambda_return(reward, value, discount, 0.8)[0, 0]
    # V_1 = r_1 + 0.5 * (0.2 * v_2 + 0.8 * (r_2 + 0.25 * v_3))
    np.testing.assert_allclose(tape.gradient(first, reward), [[1], [0.4]], rtol=1e-6)


def test_discount_weights_are_products_of_the_discounts_before(imagined):
    discount = imagined[2]
    expected = [[np.prod(discount[:h, n]) for n in range(N)] for h in range(H - 1)]
    weights = discount_weights(tf.constant(discount))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert (weights[0].numpy() == 1).all()
    assert not weights[4:, 2].numpy().any()  # after the discount of zero
