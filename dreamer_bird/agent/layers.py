"""Layers with float32 weights that compute in a given dtype.

Built on plain `tf.Variable`s: a `tf.Module` does not see the weights of Keras 3 layers. Weights are
created at the first call, and their names are Dreamer's.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import tensorflow as tf

from dreamer_bird.agent import kernels

Activation = Callable[[tf.Tensor], tf.Tensor]


_source: ContextVar[np.random.Generator | None] = ContextVar("source", default=None)


@contextmanager
def weights_from(rng: np.random.Generator) -> Iterator[None]:
    """Draw what weights are made meanwhile from a generator, and from no global one."""
    token = _source.set(rng)
    try:
        yield
    finally:
        _source.reset(token)


def _rng() -> np.random.Generator:
    if rng := _source.get():
        return rng
    # As code written against Dreamer calls us; then TensorFlow's global generator decides.
    return np.random.default_rng(tf.random.uniform([2], 0, tf.int32.max, tf.int32).numpy())


def _glorot_uniform(shape: list[int], fan_in: int, fan_out: int, name: str) -> tf.Variable:
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return tf.Variable(_rng().uniform(-limit, limit, shape).astype(np.float32), name=name)


class Layer(tf.Module):
    """A layer that makes its weights at the first call."""

    def __init__(self, act: Activation | None, dtype: tf.DType, name: str):
        super().__init__(name)
        self.act = act
        self.dtype = dtype
        self._built = False

    def ensure_built(self, size: int) -> None:
        """Create the weights for an input whose last dimension is `size`."""
        if not self._built:
            with tf.init_scope(), self.name_scope:
                self.build(size)
            self._built = True


class Dense(Layer):
    """act(x @ kernel + bias), `[..., I] -> [..., units]`."""

    def __init__(
        self,
        units: int,
        act: Activation | None = None,
        dtype: tf.DType = tf.float32,
        name: str = "dense",
    ):
        super().__init__(act, dtype, name)
        self.units = units

    def build(self, size: int) -> None:
        """Create kernel `[size, units]` and bias `[units]`."""
        self.kernel = _glorot_uniform([size, self.units], size, self.units, "kernel")
        self.bias = tf.Variable(tf.zeros([self.units]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[..., units]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        y = self.product(x, self.kernel) + tf.cast(self.bias, self.dtype)
        return self.act(y) if self.act else y

    def split(self, sizes: list[int]) -> list[tf.Tensor]:
        """Return the kernel in parts, one for each of the inputs of these sizes side by side."""
        self.ensure_built(sum(sizes))
        return tf.split(self.kernel, sizes)

    def product(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return x @ kernel in the compute dtype, `[..., I] -> [..., units]`."""
        return tf.tensordot(tf.cast(x, self.dtype), tf.cast(kernel, self.dtype), 1)


class Conv(Layer):
    """Convolution with stride 2 and no padding, `[N, H, W, C] -> [N, H', W', filters]`."""

    def __init__(
        self,
        filters: int,
        size: int,
        act: Activation | None = None,
        dtype: tf.DType = tf.float32,
        name: str = "conv",
    ):
        super().__init__(act, dtype, name)
        self.filters = filters
        self.size = size

    def build(self, size: int) -> None:
        """Create kernel `[k, k, C, filters]` and bias `[filters]`."""
        shape, area = [self.size, self.size, size, self.filters], self.size**2
        self.kernel = _glorot_uniform(shape, area * size, area * self.filters, "kernel")
        self.bias = tf.Variable(tf.zeros([self.filters]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[N, (H - k) / 2 + 1, (W - k) / 2 + 1, filters]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        y = kernels.conv(tf.cast(x, self.dtype), tf.cast(self.kernel, self.dtype))
        y = kernels.add_bias(y, tf.convert_to_tensor(self.bias))
        return self.act(y) if self.act else y


class TransposedConv(Conv):
    """Transposed convolution, stride 2, no padding, `[N, H, W, C] -> [N, H', W', filters]`."""

    def build(self, size: int) -> None:
        """Create kernel `[k, k, filters, C]` and bias `[filters]`."""
        shape, area = [self.size, self.size, self.filters, size], self.size**2
        self.kernel = _glorot_uniform(shape, area * size, area * self.filters, "kernel")
        self.bias = tf.Variable(tf.zeros([self.filters]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[N, 2 (H - 1) + k, 2 (W - 1) + k, filters]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        y = kernels.transposed_conv(tf.cast(x, self.dtype), tf.cast(self.kernel, self.dtype))
        # As one row an image: the library adds few numbers to each pixel slowly.
        row = tf.reshape(y, [-1, math.prod(y.shape[1:])])
        row = kernels.add_bias(row, tf.convert_to_tensor(self.bias))
        y = tf.reshape(row, [-1, *y.shape[1:]])
        return self.act(y) if self.act else y


class GRUCell(Layer):
    """Gated recurrent unit, the equations and weight layout of Keras with `reset_after`."""

    def __init__(self, units: int, dtype: tf.DType = tf.float32, name: str = "gru"):
        super().__init__(None, dtype, name)
        self.units = units

    def build(self, size: int) -> None:
        """Create kernel `[size, 3U]`, recurrent kernel `[U, 3U]` and bias `[2, 3U]`."""
        self.kernel = _glorot_uniform([size, 3 * self.units], size, 3 * self.units, "kernel")
        square = _rng().normal(size=[3 * self.units, self.units])
        orthogonal = np.linalg.qr(square)[0].T.astype(np.float32)
        self.recurrent_kernel = tf.Variable(orthogonal, name="recurrent_kernel")
        self.bias = tf.Variable(tf.zeros([2, 3 * self.units]), name="bias")

    def __call__(self, x: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Return the next state `[N, U]`, float32, from input `[N, I]` and state `[N, U]`."""
        self.ensure_built(x.shape[-1])
        inputs = self._affine(x, self.kernel, self.bias[0])
        recurrent = self._affine(state, self.recurrent_kernel, self.bias[1])
        update_x, reset_x, candidate_x = tf.split(inputs, 3, -1)
        update_h, reset_h, candidate_h = tf.split(recurrent, 3, -1)
        update = tf.sigmoid(update_x + update_h)
        candidate = tf.tanh(candidate_x + tf.sigmoid(reset_x + reset_h) * candidate_h)
        return update * state + (1 - update) * candidate

    def _affine(self, x: tf.Tensor, kernel: tf.Variable, bias: tf.Tensor) -> tf.Tensor:
        product = tf.matmul(tf.cast(x, self.dtype), tf.cast(kernel, self.dtype))
        # The gates in float32, since many small changes add up in the state over time; a CPU also
        # computes their sigmoids faster so.
        return tf.cast(product, tf.float32) + bias
