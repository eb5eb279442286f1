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
        # The library takes the gradient of the kernel slowly where the output is this small.
        convolve = _conv_of_few if (x.shape[1] - self.size) // 2 + 1 <= 2 else _conv
        y = convolve(*_pair_columns(tf.cast(x, self.dtype), tf.cast(self.kernel, self.dtype)))
        y = _add_bias(y, tf.convert_to_tensor(self.bias))
        return self.act(y) if self.act else y


class TransposedConv(Layer):
    """Transposed convolution with stride 2 and no padding, `[N, H, W, C] -> [N, H', W', filters]`.

    Computed in one of three forms that give the same numbers; the fastest depends on the shape.
    """

    def __init__(
        self,
        filters: int,
        size: int,
        act: Activation | None = None,
        dtype: tf.DType = tf.float32,
        name: str = "deconv",
    ):
        super().__init__(act, dtype, name)
        self.filters = filters
        self.size = size

    def build(self, size: int) -> None:
        """Create kernel `[k, k, filters, C]` and bias `[filters]`."""
        shape, area = [self.size, self.size, self.filters, size], self.size**2
        self.kernel = _glorot_uniform(shape, area * size, area * self.filters, "kernel")
        self.bias = tf.Variable(tf.zeros([self.filters]), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Return `[N, 2 (H - 1) + k, 2 (W - 1) + k, filters]` in the compute dtype."""
        self.ensure_built(x.shape[-1])
        x = tf.cast(x, self.dtype)
        if x.shape[1] == x.shape[2] == 1:
            y = self._from_one_pixel(x)
        # The library's own form is slow with few output channels, as an image has.
        elif self.filters < 8:
            y = self._by_phases(x)
        else:
            y = self._native(x)
        # As one row an image: the library adds few numbers to each pixel slowly.
        row = tf.reshape(y, [-1, math.prod(y.shape[1:])])
        y = tf.reshape(_add_bias(row, tf.convert_to_tensor(self.bias)), [-1, *y.shape[1:]])
        return self.act(y) if self.act else y

    def _from_one_pixel(self, x: tf.Tensor) -> tf.Tensor:
        """Compute it as one matrix product."""
        kernel = tf.reshape(tf.cast(self.kernel, self.dtype), [-1, x.shape[-1]])
        y = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel, transpose_b=True)
        return tf.reshape(y, [-1, self.size, self.size, self.filters])

    def _native(self, x: tf.Tensor) -> tf.Tensor:
        height, width = (2 * (extent - 1) + self.size for extent in x.shape[1:3])
        pair = 2 - width % 2  # as in `_pair_columns`; the kernel is even where the width is
        shape = [self.size, self.size // pair, pair * self.filters, x.shape[3]]
        kernel = tf.reshape(tf.cast(self.kernel, self.dtype), shape)
        shape = [tf.shape(x)[0], height, width // pair, pair * self.filters]
        y = tf.nn.conv2d_transpose(x, kernel, shape, _strides(kernel), "VALID")
        return tf.reshape(y, [-1, height, width, self.filters])

    def _by_phases(self, x: tf.Tensor) -> tf.Tensor:
        """Compute it as a convolution of stride 1, and its gradient as the library's own form has
        it: with the convolution of stride 2 that this one is the transpose of.
        """

        @tf.custom_gradient
        def forward(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                pairs, paired = _pair_columns(gradient, kernel)
                of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                    input=pairs,
                    filter_sizes=paired.shape,
                    out_backprop=x,
                    strides=[1, *_strides(paired), 1],
                    padding="VALID",
                )
                return _conv(pairs, paired), tf.reshape(of_kernel, kernel.shape)

            return _sub_pixel(x, kernel), backward

        return forward(x, tf.cast(self.kernel, self.dtype))


def _pair_columns(images: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Take every two columns of images `[N, H, W, C]` and of a kernel `[k, k, C, F]` for one of 2C
    channels, with which the library is faster; not where a column would be left over.
    """
    if images.shape[2] % 2 or kernel.shape[1] % 2:
        return images, kernel
    _, height, width, channels = images.shape
    images = tf.reshape(images, [-1, height, width // 2, 2 * channels])
    size, _, _, filters = kernel.shape
    return images, tf.reshape(kernel, [size, size // 2, 2 * channels, filters])


def _strides(kernel: tf.Tensor) -> list[int]:
    """Return the strides of a square kernel, 2 and 2, and 2 and 1 once its columns are pairs."""
    rows, columns = kernel.shape[:2]
    return [2, 2 * columns // rows]


def _conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, kernel, _strides(kernel), "VALID")


@tf.custom_gradient
def _conv_of_few(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Convolve, and take the gradient of the kernel as one product of all windows."""
    rows, columns, channels, filters = kernel.shape
    strides = _strides(kernel)

    def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        corners = np.multiply(strides, list(np.ndindex(*gradient.shape[1:3])))
        windows = tf.stack([x[:, i : i + rows, j : j + columns] for i, j in corners], 1)
        windows = tf.reshape(windows, [-1, rows * columns * channels])
        of_kernel = tf.matmul(windows, tf.reshape(gradient, [-1, filters]), transpose_a=True)
        of_x = tf.nn.conv2d_transpose(gradient, kernel, tf.shape(x), strides, "VALID")
        return of_x, tf.reshape(of_kernel, kernel.shape)

    return _conv(x, kernel), backward


@tf.custom_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Add a float32 bias `[C]` to images, `[N, H, W, C]` or `[N, H W C]`, and sum its gradient over
    N by a product: the library sums few channels one number at a time, and in bfloat16 no further
    than 256.
    """

    def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(gradient, [tf.shape(gradient)[0], math.prod(gradient.shape[1:])])
        image = tf.matmul(tf.ones_like(rows[:, :1]), rows, transpose_a=True)
        image = tf.reshape(tf.cast(image, tf.float32), [-1, bias.shape[0]])
        return gradient, tf.reduce_sum(image, 0)

    repeats = x.shape[-1] // bias.shape[0]
    return tf.nn.bias_add(x, tf.tile(tf.cast(bias, x.dtype), [repeats])), backward


def _sub_pixel(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve with half the kernel size and four times the channels, one group for each of the
    2x2 output phases, then move channels into space; `kernel` is `[k, k, filters, C]`.
    """
    size, _, filters, channels = kernel.shape
    half, odd = (size + 1) // 2, size % 2
    kernel = tf.pad(kernel, [[0, odd], [0, odd], [0, 0], [0, 0]])
    kernel = tf.reshape(kernel, [half, 2, half, 2, filters, channels])
    # Output 2m + phase sums in[m - j] * kernel[2j + phase]: taps run backwards.
    kernel = tf.transpose(tf.reverse(kernel, [0, 2]), [0, 2, 5, 1, 3, 4])
    kernel = tf.reshape(kernel, [half, half, channels, 4 * filters])
    edge = [half - 1, half - 1]
    y = tf.nn.conv2d(tf.pad(x, [[0, 0], edge, edge, [0, 0]]), kernel, 1, "VALID")
    _, height, width, _ = y.shape
    # A transposition, as `tf.nn.depth_to_space` is, but faster on a CPU.
    y = tf.transpose(tf.reshape(y, [-1, height, width, 2, 2 * filters]), [0, 1, 3, 2, 4])
    y = tf.reshape(y, [-1, 2 * height, 2 * width, filters])
    return y[:, : 2 * height - odd, : 2 * width - odd] if odd else y


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
