"""The layers against NumPy; the references serve the tests of the networks too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import conv, dense, gru, normal, randomise, transposed_conv

from dreamer_bird.agent import kernels
from dreamer_bird.agent.layers import Conv, Dense, GRUCell, TransposedConv, weights_from


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 3, 4, 3)])
def test_dense(shape):
    layer = Dense(5)
    layer.ensure_built(3)
    randomise(layer)
    x = normal(*shape)
    np.testing.assert_allclose(layer(tf.constant(x)), dense(x, layer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 9, 12, 1), (3, 4, 5, 2)])
def test_conv(shape):
    layer = Conv(5, 4)
    layer.ensure_built(shape[-1])
    randomise(layer)
    x = normal(*shape)
    np.testing.assert_allclose(layer(tf.constant(x)), conv(x, layer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (3, 7, 7, 2), (2, 6, 6, 3), (5, 4, 4, 2)])
def test_conv_gradients_against_numpy(shape):
    """With images of even and of odd width, to maps of 3, 2, 2 and 1 pixels."""
    layer, x = Conv(5, 4), normal(*shape)
    layer.ensure_built(shape[-1])
    kernel = layer.kernel.numpy().astype(np.float64)
    upstream = np.random.default_rng(2).normal(size=conv(x, layer).shape)
    ours = gradients(layer, x, [layer.kernel, layer.bias], upstream.astype(np.float32))
    x_gradient, kernel_gradient = np.zeros_like(x), np.zeros_like(kernel)
    for i, j in np.ndindex(*upstream.shape[1:3]):
        patch = np.s_[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        x_gradient[patch] += np.einsum("nf,klcf->nklc", upstream[:, i, j], kernel)
        kernel_gradient += np.einsum("nklc,nf->klcf", x[patch], upstream[:, i, j])
    expected = (x_gradient, kernel_gradient, upstream.sum((0, 1, 2)))
    for one, other in zip(ours, expected, strict=True):
        assert_close(one, other)


@pytest.fixture(
    params=[
        ((3, 1, 1, 6), 2, 5),
        ((3, 1, 1, 6), 20, 6),
        ((2, 5, 4, 3), 1, 5),
        ((2, 4, 5, 3), 2, 6),
        ((2, 1, 3, 2), 3, 6),
        ((2, 5, 4, 3), 8, 5),
    ],
    ids=lambda case: f"{case[0][1]}x{case[0][2]}-{case[1]}-size{case[2]}",
)
def transposed(request):
    """Return a layer, and an input: of one pixel, or for a kernel with columns in pairs or not."""
    shape, filters, size = request.param
    layer = TransposedConv(filters, size)
    layer.ensure_built(shape[-1])
    randomise(layer)
    return layer, normal(*shape)


def assert_close(ours, reference):
    """Equal to 1e-4 of the largest entry."""
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-4 * np.abs(reference).max())


def test_transposed_conv_is_a_scatter(transposed):
    layer, x = transposed
    assert_close(layer(tf.constant(x)), transposed_conv(x, layer))


def gradients(function, x, weights, upstream):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, [x, *weights], upstream)


def test_transposed_conv_gradients_against_numpy(transposed):
    layer, x = transposed
    kernel = layer.kernel.numpy().astype(np.float64)
    upstream = np.random.default_rng(2).normal(size=transposed_conv(x, layer).shape)
    ours = gradients(layer, x, [layer.kernel, layer.bias], upstream.astype(np.float32))
    x_gradient, kernel_gradient = np.zeros_like(x), np.zeros_like(kernel)
    size = layer.size
    for i, j in np.ndindex(*x.shape[1:3]):
        patch = upstream[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
        x_gradient[:, i, j] = np.tensordot(patch, kernel, 3)
        kernel_gradient += np.einsum("nklf,nc->klfc", patch, x[:, i, j])
    for one, other in zip(
        ours, (x_gradient, kernel_gradient, upstream.sum((0, 1, 2))), strict=True
    ):
        assert_close(one, other)


def test_transposed_conv_against_tensorflow(transposed):
    layer, x = transposed
    shape = transposed_conv(x, layer).shape

    def reference(x):
        return tf.nn.conv2d_transpose(x, layer.kernel, shape, 2, "VALID") + layer.bias

    upstream = tf.random.stateless_normal(shape, [0, 1])
    assert_close(layer(x), reference(tf.constant(x, tf.float32)))
    weights = [layer.kernel, layer.bias]
    for ours, theirs in zip(
        gradients(layer, x, weights, upstream),
        gradients(reference, x, weights, upstream),
        strict=True,
    ):
        assert_close(ours, theirs)


@pytest.mark.parametrize("dtype, error", [(tf.float16, 3e-3), (tf.bfloat16, 3e-2)])
def test_half_precision_computes_the_same(dtype, error):
    x = normal(2, 5, 4, 3)
    layers = [Dense(5, None, dtype), Conv(5, 4, None, dtype), TransposedConv(8, 6, None, dtype)]
    for layer, reference in zip(layers, (dense, conv, transposed_conv), strict=True):
        y = layer(tf.constant(x))
        assert y.dtype == dtype
        assert {weight.dtype for weight in layer.trainable_variables} == {tf.float32}
        expected = reference(x, layer)
        atol = error * np.abs(expected).max()
        np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype, error", [(tf.float16, 2e-2), (tf.bfloat16, 5e-2)])
def test_half_precision_has_the_same_gradients(dtype, error):
    """Of a bias too, over 800 and 45,000 pixels: TensorFlow's own sums stop at 256 in bfloat16."""
    x = normal(200, 6, 6, 3)
    for kind in (
        lambda dtype: Conv(5, 4, None, dtype),
        lambda dtype: TransposedConv(3, 5, dtype=dtype),
    ):
        half, single = kind(dtype), kind(tf.float32)
        for layer in (half, single):
            layer.ensure_built(3)
        for ours, theirs in zip(half.trainable_variables, single.trainable_variables, strict=True):
            ours.assign(theirs)
        upstream = 0.01 + tf.random.stateless_uniform(
            single(tf.constant(x, tf.float32)).shape, [0, 1]
        )
        expected = gradients(single, x, single.trainable_variables, upstream)
        ours = gradients(half, x, half.trainable_variables, tf.cast(upstream, dtype))
        for one, other in zip(ours, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=error * np.abs(other).max())


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@pytest.mark.parametrize("ahead", [False, True])
def test_a_bias_that_many_rows_share_has_its_whole_gradient(dtype, ahead):
    """TensorFlow's own sum in float16 makes 8,192 of 30,000 ones."""
    x, layer = tf.zeros([30, 1000, 3]), Dense(2, dtype=dtype)
    layer.ensure_built(5 if ahead else 3)
    with tf.GradientTape() as tape:
        y = layer.ahead_of_loop(x, 2)[0] if ahead else layer(x)
        assert y.dtype == dtype
        total = tf.reduce_sum(tf.cast(y, tf.float32))
    np.testing.assert_allclose(tape.gradient(total, layer.bias), [30_000] * 2, rtol=0.01)


def test_activation_comes_last():
    x = normal(2, 5, 5, 3)
    for layer, reference in (
        (Dense(4, tf.nn.elu), dense),
        (Conv(4, 4, tf.nn.elu), conv),
        (TransposedConv(4, 5, tf.nn.elu), transposed_conv),
    ):
        layer.ensure_built(3)
        randomise(layer)
        y = reference(x, layer)
        assert y.min() < -0.1
        assert_close(layer(tf.constant(x)), np.where(y > 0, y, np.expm1(y)))


@pytest.fixture
def cell():
    cell = GRUCell(4)
    cell.ensure_built(3)
    randomise(cell)
    return cell


def test_gru_cell(cell):
    x, state = normal(6, 3), normal(6, 4)
    after = cell(tf.constant(x), tf.constant(state, tf.float32))
    np.testing.assert_allclose(after, gru(x, state, cell), rtol=1e-5, atol=1e-6)


def test_gru_cell_is_keras_s(cell):
    reference = keras.layers.GRUCell(4, reset_after=True)
    reference.build((6, 3))
    reference.set_weights([v.numpy() for v in (cell.kernel, cell.recurrent_kernel, cell.bias)])
    ours = theirs = tf.constant(normal(6, 4), tf.float32)
    for step in range(5):
        x = tf.constant(normal(6, 3) + step, tf.float32)
        ours, theirs = cell(x, ours), reference(x, [theirs])[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_gru_state_stays_float32(dtype):
    cell = GRUCell(4, dtype)
    x, state = normal(6, 3), normal(6, 4)
    after = cell(tf.constant(x), tf.constant(state, tf.float32))
    assert after.dtype == tf.float32
    np.testing.assert_allclose(after, gru(x, state, cell), atol=0.02)


@pytest.mark.parametrize(
    "layer, fans",
    [
        (Dense(40), 30 + 40),
        (Conv(40, 4), 16 * (30 + 40)),
        (TransposedConv(40, 5), 25 * (30 + 40)),
        (GRUCell(40), 30 + 120),
    ],
    ids=lambda value: type(value).__name__,
)
def test_initial_weights(layer, fans):
    """Glorot's uniform kernel, orthogonal recurrent kernel and zero bias, as in Keras."""
    layer.ensure_built(30)
    kernel, limit = layer.kernel.numpy(), (6 / fans) ** 0.5
    assert 0.95 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.05)
    assert not layer.bias.numpy().any()
    if isinstance(layer, GRUCell):
        recurrent = layer.recurrent_kernel.numpy()
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(40), atol=1e-5)


def drawn():
    """The weights that two layers of the same kind draw, one after the other."""
    layers = GRUCell(5), GRUCell(5)
    for layer in layers:
        layer.ensure_built(3)
    return [v.numpy() for layer in layers for v in (layer.kernel, layer.recurrent_kernel)]


@pytest.mark.parametrize("ours", [True, False])
def test_weights_come_from_the_generator_given_or_else_from_the_global_one(ours):
    def seeded(seed):
        if not ours:
            tf.random.set_seed(seed)
            return drawn()
        with weights_from(np.random.default_rng(seed)):
            return drawn()

    one, same, other = map(seeded, (1, 1, 2))
    np.testing.assert_equal(one, same)
    for first, second in [(one[0], one[2]), (one[1], one[3]), *zip(one, other, strict=True)]:
        assert (first != second).all()


def test_weights_from_a_generator_leave_the_global_ones_alone():
    numbers = []
    for draw in (list, drawn):
        tf.random.set_seed(1)
        np.random.seed(1)
        with weights_from(np.random.default_rng(0)):
            draw()
        numbers.append((float(tf.random.uniform([])), np.random.uniform()))
    assert numbers[0] == numbers[1]


def test_weights_are_built_once_and_outside_of_traced_functions():
    layer = Dense(4, name="h1")
    function = tf.function(layer)
    x = tf.ones([2, 3])
    y, kernel = function(x), layer.kernel
    np.testing.assert_allclose(layer(x), y, rtol=1e-6)
    assert layer.kernel is kernel
    assert {weight.name for weight in layer.trainable_variables} == {"h1/kernel:0", "h1/bias:0"}


@pytest.mark.parametrize("shape", [(3, 1, 1, 6), (2, 5, 4, 3)])
@pytest.mark.parametrize("filters, size", [(3, 5), (9, 6)])
def test_the_plain_form_of_a_gpu_computes_the_same(monkeypatch, shape, filters, size):
    monkeypatch.setattr(kernels, "_on_gpu", lambda: True)
    layer, x = TransposedConv(filters, size), normal(*shape)
    layer.ensure_built(shape[-1])
    randomise(layer)
    assert_close(layer(tf.constant(x)), transposed_conv(x, layer))
    layer, x = Conv(filters, 4), normal(2, 8, 8, 3)
    layer.ensure_built(3)
    randomise(layer)
    assert_close(layer(tf.constant(x)), conv(x, layer))
