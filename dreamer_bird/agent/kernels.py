"""Convolutions and sums in forms that a CPU computes fast; each gives the plain form's numbers.

The library is slow where an image has few channels. So where image and kernel are of even width,
two columns are taken as one of twice the channels: a reshape. Not on a GPU: not measured there.
"""

import math
from collections.abc import Callable
from functools import cache

import tensorflow as tf

STRIDE = 2  # of all convolutions here


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve with stride 2 and no padding, `[N, H, W, C]` by `[k, k, C, F]`."""
    size, columns, channels, filters = kernel.shape
    _, height, width, _ = x.shape
    pair = 2 if width % 2 == columns % 2 == 0 and not _on_gpu() else 1
    x = tf.reshape(x, [-1, height, width // pair, pair * channels])
    kernel = tf.reshape(kernel, [size, columns // pair, pair * channels, filters])
    return tf.nn.conv2d(x, kernel, [STRIDE, STRIDE // pair], "VALID")


def transposed_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Transpose `conv`: from `[N, H, W, C]` by `[k, k, F, C]` to `[N, 2 (H - 1) + k, ..., F]`."""
    size, columns, filters, channels = kernel.shape
    _, height, width, _ = x.shape
    if height == width == 1:  # one matrix product
        kernel = tf.reshape(kernel, [-1, channels])
        y = tf.matmul(tf.reshape(x, [-1, channels]), kernel, transpose_b=True)
        return tf.reshape(y, [-1, size, columns, filters])
    pair = 2 if columns % 2 == 0 and not _on_gpu() else 1  # the output is even where the kernel is
    height, width = STRIDE * (height - 1) + size, STRIDE * (width - 1) + columns
    pairs = tf.reshape(kernel, [size, columns // pair, pair * filters, channels])
    shape = [tf.shape(x)[0], height, width // pair, pair * filters]
    y = tf.nn.conv2d_transpose(x, pairs, shape, [STRIDE, STRIDE // pair], "VALID")
    return tf.reshape(y, [-1, height, width, filters])


@tf.custom_gradient
def add_bias(x: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Add a float32 bias `[C]` to images `[N, H, W, C]`, or `[N, H W C]` as one row each.

    Its gradient is summed over N by a product: the library sums few channels one number at a time,
    and in bfloat16 no further than 256.
    """

    def backward(gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.reshape(gradient, [tf.shape(gradient)[0], math.prod(gradient.shape[1:])])
        image = tf.matmul(tf.ones_like(rows[:, :1]), rows, transpose_a=True)
        image = tf.reshape(tf.cast(image, tf.float32), [-1, bias.shape[0]])
        return gradient, tf.reduce_sum(image, 0)

    repeats = x.shape[-1] // bias.shape[0]
    return tf.nn.bias_add(x, tf.tile(tf.cast(bias, x.dtype), [repeats])), backward


def add_row_bias(x: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Add a bias `[C]` to rows `[..., C]`, both in the compute dtype.

    By way of float32 in float16, in which the library sums the bias's gradient over all rows: of
    35,000 ones to 8,192.
    """
    if x.dtype != tf.float16:
        return x + bias
    return tf.cast(tf.cast(x, tf.float32) + tf.cast(bias, tf.float32), x.dtype)


@tf.custom_gradient
def squared_norm(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Sum squares, `[..., I] -> [...]`.

    The library's own gradient first copies that of the sum to every element, which takes longer
    than all the rest.
    """
    return tf.reduce_sum(tf.square(x), -1), lambda gradient: 2 * gradient[..., None] * x


@cache
def _on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))
