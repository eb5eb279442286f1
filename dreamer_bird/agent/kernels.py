"""Fast forms of convolutions on a CPU; each gives the numbers of the plain form.

TensorFlow's own forms are slow where an image has few channels or a map few pixels. On a GPU
convolutions take the plain form, since none of the others has been measured there.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import tensorflow as tf

STRIDE = 2  # of all convolutions here
FEW_PIXELS = 2  # a side of the output, up to which windows and one product are faster
FEW_CHANNELS = 8  # of the output, below which convolving by phases is faster


def conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve with stride 2 and no padding, `[N, H, W, C]` by `[k, k, C, F]`."""
    if _on_gpu():
        return tf.nn.conv2d(x, kernel, STRIDE, "VALID")
    side = (x.shape[1] - kernel.shape[0]) // STRIDE + 1
    form = _conv_by_windows if side <= FEW_PIXELS else _conv
    return form(*_pair_columns(x, kernel))


def transposed_conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Transpose `conv`: from `[N, H, W, C]` by `[k, k, F, C]` to `[N, 2 (H - 1) + k, ..., F]`."""
    if _on_gpu():
        return _transposed(x, kernel, [STRIDE, STRIDE])
    if x.shape[1] == x.shape[2] == 1:
        return _from_one_pixel(x, kernel)
    if kernel.shape[2] < FEW_CHANNELS:
        return _by_phases(x, kernel)
    return _transposed_by_pairs(x, kernel)


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


def _conv(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, kernel, _strides(kernel), "VALID")


@tf.custom_gradient
def _conv_by_windows(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
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


def _from_one_pixel(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Transpose a convolution to one pixel: one matrix product."""
    rows, columns, filters, channels = kernel.shape
    kernel = tf.reshape(kernel, [-1, channels])
    y = tf.matmul(tf.reshape(x, [-1, channels]), kernel, transpose_b=True)
    return tf.reshape(y, [-1, rows, columns, filters])


def _transposed(x: tf.Tensor, kernel: tf.Tensor, strides: list[int]) -> tf.Tensor:
    height, width = (
        stride * (extent - 1) + size
        for stride, extent, size in zip(strides, x.shape[1:3], kernel.shape[:2], strict=True)
    )
    shape = [tf.shape(x)[0], height, width, kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, shape, strides, "VALID")


def _transposed_by_pairs(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Use the library's form, with every two columns of the output as one if they are even."""
    size, _, filters, channels = kernel.shape
    pair = 2 - size % 2  # the output is even where the kernel is
    pairs = tf.reshape(kernel, [size, size // pair, pair * filters, channels])
    y = _transposed(x, pairs, _strides(pairs))
    return tf.reshape(y, [-1, y.shape[1], pair * y.shape[2], filters])


@tf.custom_gradient
def _by_phases(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """Use a convolution of stride 1, and as its gradient the one of stride 2 that is transposed."""

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


def _sub_pixel(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve with half the kernel size and four times the channels, one group for each of the
    2x2 output phases, then move channels into space; `kernel` is `[k, k, F, C]`.
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
    return [STRIDE, STRIDE * columns // rows]
