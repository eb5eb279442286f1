"""The networks once more, in NumPy: what the tests hold the package against."""

import numpy as np


def randomise(module, scale=0.1):
    """Give biases values other than zero, so that leaving one out shows."""
    rng = np.random.default_rng(1)
    for variable in module.trainable_variables:
        variable.assign_add(rng.normal(0, scale, variable.shape))


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def dense(x, layer):
    return x @ layer.kernel.numpy().astype(np.float64) + layer.bias.numpy()


def conv(x, layer):
    """Convolution of stride 2, one output pixel at a time, `[N, H, W, C]` in float64."""
    kernel = layer.kernel.numpy().astype(np.float64)
    size, filters = kernel.shape[0], kernel.shape[-1]
    height, width = ((extent - size) // 2 + 1 for extent in x.shape[1:3])
    y = np.empty((len(x), height, width, filters))
    for i, j in np.ndindex(height, width):
        patch = x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
        y[:, i, j] = np.tensordot(patch, kernel, 3)
    return y + layer.bias.numpy()


def transposed_conv(x, layer):
    """Transposed convolution of stride 2, scattering one input pixel at a time."""
    kernel = layer.kernel.numpy().astype(np.float64)
    size, filters = kernel.shape[0], kernel.shape[2]
    height, width = (2 * (extent - 1) + size for extent in x.shape[1:3])
    y = np.zeros((len(x), height, width, filters))
    for i, j in np.ndindex(*x.shape[1:3]):
        y[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += np.einsum(
            "nc,klfc->nklf", x[:, i, j], kernel
        )
    return y + layer.bias.numpy()


def gru(x, state, layer):
    """Keras's equations with `reset_after`."""
    kernel, recurrent, bias = (
        weight.numpy().astype(np.float64)
        for weight in (layer.kernel, layer.recurrent_kernel, layer.bias)
    )
    update_x, reset_x, candidate_x = np.split(x @ kernel + bias[0], 3, -1)
    update_h, reset_h, candidate_h = np.split(state @ recurrent + bias[1], 3, -1)
    update = 1 / (1 + np.exp(-update_x - update_h))
    reset = 1 / (1 + np.exp(-reset_x - reset_h))
    return update * state + (1 - update) * np.tanh(candidate_x + reset * candidate_h)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def shapes(network):
    """Return the shape of each weight by its name without `:0`."""
    weights = network.trainable_variables
    return {weight.name.removesuffix(":0"): tuple(weight.shape) for weight in weights}
