"""Distributions of actions, latent states, images and scalars; all they compute is float32."""

import math

import tensorflow as tf

from dreamer_bird.agent.kernels import squared_norm
from dreamer_bird.agent.replicas import per_replica_random

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def split_seed(seed: tf.Tensor | None, count: int) -> tf.Tensor:
    """Return `count` seeds, `[count, 2]`, that depend on `seed` `[2]` alone unless it is None."""
    if seed is None:  # as code written against Dreamer calls us; then the global generator decides
        seed = tf.random.uniform([2], 0, tf.int32.max, tf.int32)
    with tf.device("CPU:0"):  # where a draw wants its seed: else a GPU would be waited for
        return tf.random.split(seed, count, alg="philox")


def uniform_noise(shape: tf.Tensor, seed: tf.Tensor | None, axis: int = 0) -> tf.Tensor:
    """Return uniform noise in [2^-25, 1], a pure function of `seed` `[2]` unless that is None.

    `axis` is that of the batch, of which a replica may have a part. The bits are the same on every
    device, and compiled by XLA; what TensorFlow makes of them is not, so it is made here.
    """
    seed = split_seed(seed, 1)[0] if seed is None else seed

    def draw(shape: tf.Tensor) -> tf.Tensor:
        bits = tf.random.stateless_uniform(shape, seed, None, None, tf.int32, alg="philox")
        return tf.maximum(2.0**-32 * tf.cast(bits, tf.float32) + 0.5, 2.0**-25)

    return per_replica_random(draw, shape, axis)


def normal_noise(shape: tf.Tensor, seed: tf.Tensor | None, axis: int = 0) -> tf.Tensor:
    """Return standard normal noise as `uniform_noise` returns uniform one (Box and Muller)."""
    radius, angle = tf.unstack(uniform_noise(tf.concat([[2], shape], 0), seed, axis + 1))
    return tf.sqrt(-2 * tf.math.log(radius)) * tf.cos(2 * math.pi * angle)


class FixedNormal:
    """Gaussian of a fixed deviation, 1 by default, over the last dimensions of its mean."""

    def __init__(self, mean: tf.Tensor, event_dims: int, std: float = 1.0):
        """Take the mean `[..., *event]`, how many dimensions an event has, and the deviation."""
        self._mean = tf.cast(mean, tf.float32)
        self._std = std
        self._event_dims = event_dims

    def mean(self) -> tf.Tensor:
        """Return the mean, which is the mode too, `[..., *event]`."""
        return self._mean

    mode = mean

    def log_prob(self, value: tf.Tensor) -> tf.Tensor:
        """Return log densities `[...]`.

        Written out because on images every pass over the pixels shows in the training time.
        """
        size = math.prod(self._mean.shape[self._mean.shape.rank - self._event_dims :])
        error = self._mean - tf.cast(value, tf.float32)
        batch = tf.shape(error)[: error.shape.rank - self._event_dims]
        error = tf.reshape(error, tf.concat([batch, [size]], 0))
        constant = size * (HALF_LOG_2PI + math.log(self._std))
        return -0.5 / self._std**2 * squared_norm(error) - constant


class TanhNormal:
    """Gaussian with independent dimensions, squashed by tanh into [-1, 1]."""

    def __init__(self, mean: tf.Tensor, std: tf.Tensor):
        """Take mean and standard deviation before the tanh, `[..., A]`."""
        self.loc = tf.cast(mean, tf.float32)
        self.std = tf.cast(std, tf.float32)

    noise = staticmethod(normal_noise)  # what a sample is made of besides the distribution

    def sample(self, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return a reparameterised sample, `[..., A]`."""
        return self.sample_by(self.noise(tf.shape(self.loc), seed))

    def sample_by(self, noise: tf.Tensor) -> tf.Tensor:
        """Return the sample that is made of `noise`, `[..., A]`."""
        return tf.tanh(self.loc + self.std * noise)

    def mode(self, seed: tf.Tensor | None = None, samples: int = 100) -> tf.Tensor:
        """Return the most likely of a number of samples, as Dreamer does, `[..., A]`."""
        shape = tf.concat([[samples], tf.shape(self.loc)], 0)
        raw = self.loc + self.std * self.noise(shape, seed, axis=1)
        best = tf.one_hot(tf.argmax(self._log_prob(raw), 0), samples, axis=0)
        return tf.reduce_sum(best[..., None] * tf.tanh(raw), 0)

    def gaussian_entropy(self) -> tf.Tensor:
        """Return the entropy before the tanh (Eq. 10), `[...]`.

        1/2 log(2 pi e std^2), summed over the dimensions.
        """
        return tf.reduce_sum(tf.math.log(self.std) + 0.5 + HALF_LOG_2PI, -1)

    def entropy(self, noise: tf.Tensor | None = None) -> tf.Tensor:
        """Return an unbiased estimate of the entropy, `[...]`, from the sample made of `noise`.

        H[tanh(x)] = H[x] + E[log |d tanh(x) / dx|]: only the second term needs the sample.
        """
        noise = self.noise(tf.shape(self.loc), None) if noise is None else noise
        return self.gaussian_entropy() + _log_tanh_slope(self.loc + self.std * noise)

    def _log_prob(self, raw: tf.Tensor) -> tf.Tensor:
        normalised = tf.square((raw - self.loc) / self.std)
        log_normal = -0.5 * normalised - tf.math.log(self.std) - HALF_LOG_2PI
        return tf.reduce_sum(log_normal, -1) - _log_tanh_slope(raw)


def _log_tanh_slope(raw: tf.Tensor) -> tf.Tensor:
    # log(1 - tanh(x)^2), in the form that does not round to log(0) where tanh saturates.
    return tf.reduce_sum(2 * (math.log(2) - raw - tf.nn.softplus(-2 * raw)), -1)


class OneHot:
    """Categorical actions as one-hot vectors, with straight-through gradients."""

    def __init__(self, logits: tf.Tensor):
        """Take unnormalised log probabilities `[..., A]`."""
        self._log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))

    @staticmethod
    def noise(shape: tf.Tensor, seed: tf.Tensor | None, axis: int = 0) -> tf.Tensor:
        """Return what a sample of that shape is made of besides the distribution, Gumbel noise."""
        uniform = tf.minimum(uniform_noise(shape, seed, axis), 1 - 2.0**-24)  # not 1: log(0)
        return -tf.math.log(-tf.math.log(uniform))

    def sample(self, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return a one-hot sample `[..., A]` whose gradient is that of the probabilities."""
        return self.sample_by(self.noise(tf.shape(self._log_probs), seed))

    def sample_by(self, noise: tf.Tensor) -> tf.Tensor:
        """Return the sample that is made of `noise`, `[..., A]`."""
        return self._straight_through(self._log_probs + noise)

    def mode(self, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the most likely action, one-hot, `[..., A]`; needs no seed."""
        return self._straight_through(self._log_probs)

    def entropy(self, noise: tf.Tensor | None = None) -> tf.Tensor:
        """Return the exact entropy `[...]`; needs no noise."""
        return -tf.reduce_sum(tf.exp(self._log_probs) * self._log_probs, -1)

    gaussian_entropy = entropy  # a categorical distribution has only one

    def _straight_through(self, scores: tf.Tensor) -> tf.Tensor:
        probs = tf.exp(self._log_probs)
        # Forward the sample, backward the probabilities: argmax has no gradient of its own.
        sample = tf.one_hot(tf.argmax(scores, -1), scores.shape[-1])
        return probs + tf.stop_gradient(sample - probs)
