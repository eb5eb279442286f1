"""Layers with float32 weights that compute in a given dtype.

Built on plain `tf.Variable`s: a `tf.Module` does not see the weights of Keras 3 layers. Weights are
created at the first call, and their names are Dreamer's.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import reduce

import numpy as np
import tensorflow as tf

from dreamer_bird.agent import kernels

Activation = Callable[[tf.Tensor], tf.Tensor] | None
Tensors = tuple[tf.Tensor, ...]
Completion = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_source: ContextVar[np.random.Generator | None] = ContextVar("source", default=None)
_held: ContextVar[dict["Layer", Tensors] | None] = ContextVar("held", default=None)


def weights_from(rng: np.random.Generator) -> AbstractContextManager[None]:
    """Draw what weights are made meanwhile from a generator, and from no global one."""
    return _meanwhile(_source, rng)


def weights_read_once(*networks: tf.Module) -> AbstractContextManager[None]:
    """Read and cast all weights now, for all steps of a loop that is built meanwhile."""
    # In the order of the networks, so that all processes build the same graph.
    parts = dict.fromkeys(part for network in networks for part in network.submodules)
    built = [part for part in parts if isinstance(part, Layer) and part.built]
    return _meanwhile(_held, {layer: layer.read() for layer in built})


@contextmanager
def _meanwhile(variable: ContextVar, value: object) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def _rng() -> np.random.Generator:
    if rng := _source.get():
        return rng
    # As code written against Dreamer calls us; then TensorFlow's global generator decides.
    return np.random.default_rng(tf.random.uniform([2], 0, tf.int32.max, tf.int32).numpy())


def _glorot_uniform(shape: list[int]) -> tf.Variable:
    """Return a kernel, whose last two dimensions are inputs and outputs, in either order."""
    *window, inputs, outputs = shape
    limit = (6 / (math.prod(window) * (inputs + outputs))) ** 0.5
    return tf.Variable(_rng().uniform(-limit, limit, shape).astype(np.float32), name="kernel")


class Layer(tf.Module):
    """A layer that makes its weights at the first call."""

    def __init__(self, act: Activation, dtype: tf.DType, name: str):
        super().__init__(name)
        self.act = act
        self.dtype = dtype
        self.built = False

    def ensure_built(self, size: int) -> None:
        """Create the weights for an input whose last dimension is `size`."""
        if not self.built:
            with tf.init_scope(), self.name_scope:
                self.build(size)
            self.built = True

    def weights(self) -> Tensors:
        """Return the weights as `read` does, or as they were read before the loop around this."""
        held = _held.get() or {}
        return held[self] if self in held else self.read()

    def read(self) -> Tensors:
        """Return kernel and bias in the compute dtype."""
        return self._tensor(self.kernel), self._tensor(self.bias)

    def _tensor(self, weights: tf.Variable) -> tf.Tensor:
        return tf.cast(weights.read_value(), self.dtype)


def through(layers: Iterable[Layer], x: tf.Tensor) -> tf.Tensor:
    """Return what the last of some layers makes of `x`, each fed by the one before."""
    return reduce(lambda x, layer: layer(x), layers, x)


class Dense(Layer):
    """act(x @ kernel + bias), `[..., I] -> [..., units]`."""

    def __init__(
        self, units: int, act: Activation = None, dtype: tf.DType = tf.float32, name: str = "dense"
    ):
        super().__init__(act, dtype, name)
        self.units = units

    def build(self, size: int) -> None:
        """Create kernel `[size, units]` and bias `[units]`."""
        self.kernel = _glorot_uniform([size, self.units])
        self.bias = tf.Variable(tf.zeros([self.units]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[..., units]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        kernel, bias = self.weights()
        y = kernels.add_row_bias(tf.tensordot(tf.cast(x, self.dtype), kernel, 1), bias)
        return self.act(y) if self.act else y

    def ahead_of_loop(self, x: tf.Tensor, size: int) -> tuple[tf.Tensor, Completion]:
        """Return the share of the last inputs `[..., J]` in what is activated, `[..., units]`, and
        the function that completes it, of the first inputs `[..., size]` and the share.

        So one product does for all steps of a loop what they need not wait for.
        """
        self.ensure_built(size + x.shape[-1])
        kernel, bias = self.read()
        inside, outside = tf.split(kernel, [size, x.shape[-1]])
        share = kernels.add_row_bias(tf.tensordot(tf.cast(x, self.dtype), outside, 1), bias)

        def complete(first: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
            y = tf.matmul(tf.cast(first, self.dtype), inside) + share
            return self.act(y) if self.act else y

        return share, complete


class Conv(Layer):
    """Convolution with stride 2 and no padding, `[N, H, W, C] -> [N, H', W', filters]`."""

    def __init__(
        self,
        filters: int,
        size: int,
        act: Activation = None,
        dtype: tf.DType = tf.float32,
        name: str = "conv",
    ):
        super().__init__(act, dtype, name)
        self.filters = filters
        self.size = size

    def build(self, size: int) -> None:
        """Create kernel `[k, k, C, filters]` and bias `[filters]`."""
        self.kernel = _glorot_uniform([self.size, self.size, size, self.filters])
        self.bias = tf.Variable(tf.zeros([self.filters]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[N, (H - k) // 2 + 1, (W - k) // 2 + 1, filters]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        y = kernels.conv(tf.cast(x, self.dtype), tf.cast(self.kernel, self.dtype))
        y = kernels.add_bias(y, tf.convert_to_tensor(self.bias))
        return self.act(y) if self.act else y


class TransposedConv(Conv):
    """Transposed convolution, stride 2, no padding, `[N, H, W, C] -> [N, H', W', filters]`."""

    def build(self, size: int) -> None:
        """Create kernel `[k, k, filters, C]` and bias `[filters]`."""
        self.kernel = _glorot_uniform([self.size, self.size, self.filters, size])
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
        self.kernel = _glorot_uniform([size, 3 * self.units])
        square = _rng().normal(size=[3 * self.units, self.units])
        orthogonal = np.linalg.qr(square)[0].T.astype(np.float32)
        self.recurrent_kernel = tf.Variable(orthogonal, name="recurrent_kernel")
        self.bias = tf.Variable(tf.zeros([2, 3 * self.units]), name="bias")

    def __call__(self, x: tf.Tensor, state: tf.Tensor) -> tf.Tensor:
        """Return the next state `[N, U]`, float32, from input `[N, I]` and state `[N, U]`."""
        self.ensure_built(x.shape[-1])
        kernel, recurrent_kernel, bias_x, bias_h = self.weights()
        gates_x, candidate_x = self._affine(x, kernel, bias_x)
        gates_h, candidate_h = self._affine(state, recurrent_kernel, bias_h)
        update, reset = tf.split(tf.sigmoid(gates_x + gates_h), 2, -1)
        candidate = tf.tanh(candidate_x + reset * candidate_h)
        return candidate + update * (state - candidate)

    def read(self) -> Tensors:
        """Return the kernels in the compute dtype, and both biases in float32."""
        kernels = self._tensor(self.kernel), self._tensor(self.recurrent_kernel)
        return *kernels, *tf.unstack(self.bias)

    def _affine(self, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> list[tf.Tensor]:
        """Return the share of `x` in both gates and in the candidate, `[N, 2U]` and `[N, U]`."""
        product = tf.matmul(tf.cast(x, self.dtype), kernel)
        # In float32, since many small changes add up in the state over time; a CPU also computes
        # their sigmoids faster so.
        return tf.split(tf.cast(product, tf.float32) + bias, [2 * self.units, self.units], -1)
