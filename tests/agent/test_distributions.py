import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import bijectors
from tensorflow_probability import distributions as tfd

from dreamer_bird.agent.distributions import (
    FixedNormal,
    OneHot,
    TanhNormal,
)

SEED = tf.constant([1, 2])
MANY = 20000
PROBS = [0.1, 0.2, 0.7]


def tanh_density(mean, std):
    """Return points x, their actions tanh(x) and the log density of those, in float64."""
    x = np.linspace(mean - 12 * std, mean + 12 * std, 200001)
    log_slope = 2 * (np.log(2) - np.logaddexp(x, -x))  # log(1 - tanh(x)^2)
    return x, np.tanh(x), stats.norm.logpdf(x, mean, std) - log_slope


def tanh_entropy(mean, std):
    x, _, log_density = tanh_density(mean, std)
    return np.trapezoid(-stats.norm.pdf(x, mean, std) * log_density, x)


def repeated(mean, std, times=MANY):
    return TanhNormal(tf.fill([times, 1], mean), tf.fill([times, 1], std))


def entropy_of_the_sample(dist):
    """Return the estimate from the sample that SEED gives."""
    return dist.entropy(dist.noise(dist.loc.shape, SEED))


@pytest.mark.parametrize("mean, std", [(0.0, 0.5), (1.0, 1.0), (-2.0, 0.2), (0.5, 5.0)])
def test_tanh_entropy_averages_to_the_integral(mean, std):
    estimates = entropy_of_the_sample(repeated(mean, std)).numpy()
    error = estimates.mean(dtype=np.float64) - tanh_entropy(mean, std)
    assert abs(error) < 4 * estimates.std() / MANY**0.5


@pytest.mark.parametrize("mean, std", [(0.0, 0.5), (1.0, 1.0), (0.5, 5.0)])
def test_gradients_of_the_tanh_entropy_average_to_those_of_the_integral(mean, std):
    dist = repeated(mean, std)
    with tf.GradientTape() as tape:
        tape.watch((dist.loc, dist.std))
        total = tf.reduce_sum(entropy_of_the_sample(dist))
    gradients = [gradient.numpy()[:, 0] for gradient in tape.gradient(total, (dist.loc, dist.std))]
    step = 1e-4
    expected = (
        (tanh_entropy(mean + step, std) - tanh_entropy(mean - step, std)) / (2 * step),
        (tanh_entropy(mean, std + step) - tanh_entropy(mean, std - step)) / (2 * step),
    )
    for gradient, integral in zip(gradients, expected, strict=True):
        assert abs(gradient.mean() - integral) < 4 * gradient.std() / MANY**0.5


def test_tanh_entropy_of_a_sample_is_minus_its_log_density_in_the_sampled_part():
    # The Gaussian part is exact, and the slope is taken at the very sample that `seed` gives.
    dist = TanhNormal(tf.constant([[0.3, -0.4]]), tf.constant([[0.5, 0.2]]))
    action = dist.sample(SEED).numpy().astype(np.float64)
    exact = stats.norm.entropy(0, [0.5, 0.2]).sum() + np.log(1 - action**2).sum()
    assert float(entropy_of_the_sample(dist)[0]) == pytest.approx(exact, abs=1e-5)


def test_tanh_entropy_is_finite_where_tanh_saturates():
    dist = TanhNormal(tf.fill([100, 2], 5.0), tf.fill([100, 2], 50.0))
    with tf.GradientTape() as tape:
        tape.watch((dist.loc, dist.std))
        entropy = entropy_of_the_sample(dist)
    assert np.abs(dist.sample(SEED)).max() == 1
    assert np.isfinite(entropy).all()
    assert all(np.isfinite(g).all() for g in tape.gradient(entropy, (dist.loc, dist.std)))


def test_gaussian_entropy_sums_over_dimensions():
    std = np.array([[0.1, 2.0, 5.0], [1.0, 1.0, 1.0]], np.float32)
    dist = TanhNormal(tf.ones([2, 3]), tf.constant(std))
    expected = (0.5 * np.log(2 * np.pi * np.e * std**2)).sum(-1)
    np.testing.assert_allclose(dist.gaussian_entropy(), expected, rtol=1e-6)


def test_tanh_samples_follow_the_distribution():
    raw = np.arctanh(repeated(0.4, 0.7).sample(SEED).numpy()[:, 0].astype(np.float64))
    assert stats.kstest(raw, stats.norm(0.4, 0.7).cdf).pvalue > 0.01


def test_tanh_samples_are_reparameterised():
    dist = TanhNormal(tf.constant([[0.3]]), tf.constant([[0.5]]))
    with tf.GradientTape() as tape:
        tape.watch((dist.loc, dist.std))
        action = dist.sample(SEED)
    slope, noise = 1 - action**2, (tf.atanh(action) - dist.loc) / dist.std
    loc_gradient, std_gradient = tape.gradient(action, (dist.loc, dist.std))
    np.testing.assert_allclose(loc_gradient, slope, rtol=1e-5)
    np.testing.assert_allclose(std_gradient, slope * noise, rtol=1e-4)


@pytest.mark.parametrize("mean, std", [(0.2, 0.3), (-0.8, 0.4), (0.0, 0.1)])
def test_tanh_mode_is_near_the_maximum_of_the_density(mean, std):
    _, action, log_density = tanh_density(mean, std)
    mode = repeated(mean, std, 20).mode(SEED, samples=5000).numpy()
    np.testing.assert_allclose(mode, action[log_density.argmax()], atol=0.01)


def test_tanh_mode_is_likelier_than_most_samples():
    mean, std = np.full([50, 1], 0.5), np.full([50, 1], 0.8)
    reference = tfd.Independent(
        tfd.TransformedDistribution(tfd.Normal(mean, std), bijectors.Tanh()), 1
    )
    dist = TanhNormal(tf.constant(mean), tf.constant(std))
    mode = reference.log_prob(tf.cast(dist.mode(SEED), tf.float64)).numpy()
    samples = reference.log_prob(reference.sample(1000, seed=SEED)).numpy()
    assert (mode > np.quantile(samples, 0.9)).all()


def test_tanh_mode_picks_whole_actions():
    """All dimensions come from the same sample, the one whose joint density is greatest."""
    dist = TanhNormal(tf.constant([[0.2, -0.3]]), tf.constant([[0.5, 0.9]]))
    raw = (dist.loc + dist.std * dist.noise([100, *dist.loc.shape], SEED, axis=1)).numpy()[:, 0]
    slope = np.log(1 - np.tanh(raw.astype(np.float64)) ** 2)
    density = (stats.norm.logpdf(raw, [0.2, -0.3], [0.5, 0.9]) - slope).sum(-1)
    np.testing.assert_allclose(dist.mode(SEED)[0], np.tanh(raw[density.argmax()]), atol=1e-6)


def test_tanh_log_density_against_change_of_variables():
    mean, std = np.array([[0.2, -1.5]], np.float32), np.array([[0.5, 2.0]], np.float32)
    raw = np.random.default_rng(0).normal(0, 2, (64, 1, 2)).astype(np.float32)
    reference = tfd.Independent(
        tfd.TransformedDistribution(
            tfd.Normal(np.float64(mean), np.float64(std)), bijectors.Tanh()
        ),
        1,
    )
    ours = TanhNormal(tf.constant(mean), tf.constant(std))._log_prob(tf.constant(raw))
    np.testing.assert_allclose(ours, reference.log_prob(np.tanh(np.float64(raw))), rtol=1e-4)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_all_is_float32(dtype):
    mean, std = tf.zeros([2, 3, 4], dtype), tf.ones([2, 3, 4], dtype)
    tanh, onehot, unit = TanhNormal(mean, std), OneHot(mean), FixedNormal(mean, 1)
    for dist in (tanh, onehot):
        for action in (dist.sample(SEED), dist.mode(SEED)):
            assert (action.dtype, action.shape) == (tf.float32, (2, 3, 4))
        for entropy in (dist.entropy(), dist.gaussian_entropy()):
            assert (entropy.dtype, entropy.shape) == (tf.float32, (2, 3))
    assert (unit.mode().dtype, unit.mean().dtype) == (tf.float32, tf.float32)
    assert unit.log_prob(mean).dtype == tf.float32


def test_onehot_frequencies():
    # Logits need not be normalised.
    samples = OneHot(tf.tile(tf.math.log([PROBS]) + 3.0, [MANY, 1])).sample(SEED).numpy()
    np.testing.assert_allclose(np.sort(samples), np.tile([0, 0, 1], [MANY, 1]), atol=1e-6)
    deviation = np.sqrt(np.multiply(PROBS, np.subtract(1, PROBS)) / MANY)
    assert (np.abs(samples.mean(0, dtype=np.float64) - PROBS) < 4 * deviation).all()


def test_onehot_gradient_is_that_of_the_probabilities():
    logits, weight = tf.constant([[0.3, -1.0, 2.0]]), np.array([1.0, 10.0, 100.0])
    for act in (OneHot.sample, OneHot.mode):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(act(OneHot(logits), SEED) * weight)
        probs = special.softmax(logits.numpy()[0].astype(np.float64))
        expected = probs * (weight - probs @ weight)
        np.testing.assert_allclose(tape.gradient(total, logits)[0], expected, rtol=1e-4)


def test_onehot_mode_and_entropy():
    dist = OneHot(tf.math.log([PROBS, [0.6, 0.3, 0.1]]))
    np.testing.assert_allclose(dist.mode(), [[0, 0, 1], [1, 0, 0]], atol=1e-6)
    expected = stats.entropy([PROBS, [0.6, 0.3, 0.1]], axis=1)
    np.testing.assert_allclose(dist.entropy(), expected, rtol=1e-6)
    np.testing.assert_allclose(dist.gaussian_entropy(), expected, rtol=1e-6)


@pytest.mark.parametrize("event_dims", [0, 1, 3])
@pytest.mark.parametrize("std", [1.0, 0.3])
def test_fixed_normal_log_prob_and_gradients(event_dims, std):
    rng = np.random.default_rng(0)
    mean, value = rng.normal(size=(2, 2, 5, 4, 3, 2)).astype(np.float32)
    upstream = rng.normal(size=mean.shape[: 5 - event_dims]).astype(np.float32)
    inputs = tf.constant(mean), tf.constant(value)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        log_prob = FixedNormal(inputs[0], event_dims, std).log_prob(inputs[1])
    axes = tuple(range(5 - event_dims, 5))
    expected = stats.norm.logpdf(value, mean, std).sum(axes)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5)
    expected = np.expand_dims(upstream, axes) * (value - mean) / std**2
    of_mean, of_value = tape.gradient(log_prob, inputs, upstream)
    np.testing.assert_allclose(of_mean, expected, rtol=1e-5)
    np.testing.assert_allclose(of_value, -expected, rtol=1e-5)
    np.testing.assert_array_equal(FixedNormal(inputs[0], event_dims, std).mode(), mean)
