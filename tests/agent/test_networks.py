import numpy as np
import pytest
import tensorflow as tf
from reference import conv, dense, elu, normal, randomise, shapes, transposed_conv
from scipy import special, stats

from dreamer_bird.agent.distributions import OneHot, TanhNormal
from dreamer_bird.agent.networks import (
    ActionDecoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)

FEATURES = 7


def relu(x):
    return np.maximum(x, 0)


def dense_stack(x, network):
    for layer in network.layers:
        x = elu(dense(x, layer))
    return dense(x, network.hout)


def features(*shape):
    return tf.constant(normal(*shape, FEATURES), tf.float32)


def built(network, x):
    """Return the network with weights, its biases other than zero."""
    network(x)
    randomise(network)
    return network


@pytest.mark.parametrize(
    "size, layers, embed",
    [(16, 2, 16), (32, 3, 32), (48, 4, 16), (64, 4, 64), (80, 4, 144), (96, 5, 32), (128, 5, 128)],
)
def test_encoder(size, layers, embed):
    """At any size: maps of side 1 to 3 in the end, with 2, 4, 8 ... channels."""
    image = tf.random.stateless_uniform([1, 2, size, size, 3], [0, 1], -0.5, 0.5)
    encoder = built(ConvEncoder(depth=2, shape=(size, size, 3)), {"image": image})
    x = image.numpy().astype(np.float64)[0]
    for layer in encoder.layers:
        x = relu(conv(x, layer))
    embedding = encoder({"image": image})
    assert embedding.shape == (1, 2, embed) and len(encoder.layers) == layers
    np.testing.assert_allclose(embedding, x.reshape(1, 2, embed), atol=1e-5)


@pytest.mark.parametrize(
    "size, kernels",
    [(16, [6, 6]), (64, [5, 5, 6, 6]), (80, [2, 5, 5, 6, 6]), (128, [5, 5, 5, 6, 6])],
)
def test_decoder(size, kernels):
    decoder = built(ConvDecoder(depth=2, shape=(size, size, 3)), features(2, 3))
    x = dense(features(2, 3).numpy().astype(np.float64), decoder.h1).reshape(6, 1, 1, 64)
    for layer in decoder.layers[:-1]:
        x = relu(transposed_conv(x, layer))
    x = transposed_conv(x, decoder.layers[-1]).reshape(2, 3, size, size, 3)
    dist = decoder(features(2, 3))
    assert dist.mean().shape == (2, 3, size, size, 3)
    assert [layer.size for layer in decoder.layers] == kernels
    np.testing.assert_allclose(dist.mean(), x, atol=1e-5)
    image = np.full_like(x, 0.25)
    log_prob = dist.log_prob(tf.constant(image))
    np.testing.assert_allclose(log_prob, stats.norm.logpdf(image, x).sum((2, 3, 4)), rtol=1e-5)


def test_dense_encoder():
    state = tf.constant(normal(2, 3, 4), tf.float32)
    encoder = built(DenseEncoder(2, 5), {"state": state})
    x = normal(2, 3, 4)
    for layer in encoder.layers:
        x = elu(dense(x, layer))
    np.testing.assert_allclose(encoder({"state": state}), x, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_dense_decoder(shape):
    head = built(DenseDecoder(shape, layers=2, units=5), features(4, 6))
    mean = dense_stack(features(4, 6).numpy(), head).reshape(4, 6, *shape)
    dist, value = head(features(4, 6)), mean + 0.5
    assert dist.mode().shape == (4, 6, *shape)
    np.testing.assert_allclose(dist.mode(), mean, atol=1e-5)
    expected = stats.norm.logpdf(value, mean).reshape(4, 6, -1).sum(-1)
    np.testing.assert_allclose(dist.log_prob(tf.constant(value)), expected, rtol=1e-5)


def test_binary_head_takes_soft_targets():
    head = built(DenseDecoder((), 3, 5, "binary"), features(4, 6))
    probs = special.expit(dense_stack(features(4, 6).numpy(), head)[..., 0])
    dist = head(features(4, 6))
    np.testing.assert_allclose(dist.mean(), probs, rtol=1e-5)
    # What the discount head learns: 0.99 where the episode goes on, 0 where it ends.
    for target in (0.99, 0.0):
        expected = target * np.log(probs) + (1 - target) * np.log(1 - probs)
        log_prob = dist.log_prob(tf.fill([4, 6], target))
        np.testing.assert_allclose(log_prob, expected, rtol=1e-4)


def test_actor():
    actor = ActionDecoder(3, 2, 8, init_std=2.0, min_std=0.1, mean_scale=4.0)
    built(actor, features(4, 6))
    actor.hout.kernel.assign(5 * actor.hout.kernel)  # so that the bound of the mean shows
    raw_mean, raw_std = np.split(dense_stack(features(4, 6).numpy(), actor), 2, -1)
    dist = actor(features(4, 6))
    assert isinstance(dist, TanhNormal)
    assert np.abs(raw_mean).max() > 4
    np.testing.assert_allclose(dist.loc, 4 * np.tanh(raw_mean / 4), atol=1e-5)
    std = np.logaddexp(0, raw_std + np.log(np.exp(2) - 1)) + 0.1
    np.testing.assert_allclose(dist.std, std, atol=1e-5)
    assert dist.sample(tf.constant([0, 1])).shape == (4, 6, 3)


@pytest.mark.parametrize("init_std", [0.1, 1.0, 5.0, 50.0])
def test_policy_starts_at_its_initial_standard_deviation(init_std):
    actor = ActionDecoder(3, 2, 8, init_std=init_std, min_std=1e-4)
    dist = actor(tf.zeros([1, FEATURES]))
    np.testing.assert_allclose(dist.std, np.full([1, 3], init_std + 1e-4), rtol=1e-5)
    np.testing.assert_array_equal(dist.loc, np.zeros([1, 3]))


def test_discrete_actor():
    actor = built(ActionDecoder(3, 2, 5, "onehot"), features(4))
    logits = dense_stack(features(4).numpy(), actor)
    dist = actor(features(4))
    assert isinstance(dist, OneHot)
    assert logits.shape == (4, 3)
    np.testing.assert_array_equal(np.argmax(dist.mode(), -1), logits.argmax(-1))
    expected = stats.entropy(special.softmax(logits, -1), axis=-1)
    np.testing.assert_allclose(dist.entropy(), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_heads_return_float32(dtype):
    x = features(2, 3)
    normal_head = DenseDecoder((), 1, 5, dtype=dtype)(x)
    binary_head = DenseDecoder((), 1, 5, "binary", dtype=dtype)(x)
    policy = ActionDecoder(2, 1, 5, dtype=dtype)(x)
    tensors = [normal_head.mode(), binary_head.mean(), policy.loc, policy.std]
    tensors.append(ConvDecoder(1, dtype=dtype)(x).mean())
    assert {tensor.dtype for tensor in tensors} == {tf.float32}


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_no_head_rounds_what_it_returns(dtype):
    value, actor = DenseDecoder((), 1, 5, dtype=dtype), ActionDecoder(2, 1, 5, dtype=dtype)
    for head, function in ((value, lambda x: value(x).mode()), (actor, actor.parameters)):
        before = function(features(2, 3))
        head.hout.bias.assign_add(70_001 * tf.ones_like(head.hout.bias))  # float16 ends at 65,504
        np.testing.assert_allclose(function(features(2, 3)), before + 70_001, atol=0.01)


def test_paper_size_encoder():
    encoder = ConvEncoder()
    assert encoder({"image": tf.zeros([1, 64, 64, 3])}).shape == (1, 1024)
    assert shapes(encoder) == {
        "h1/kernel": (4, 4, 3, 32),
        "h1/bias": (32,),
        "h2/kernel": (4, 4, 32, 64),
        "h2/bias": (64,),
        "h3/kernel": (4, 4, 64, 128),
        "h3/bias": (128,),
        "h4/kernel": (4, 4, 128, 256),
        "h4/bias": (256,),
    }


def test_paper_size_decoder():
    decoder = ConvDecoder()
    assert decoder(tf.zeros([1, 340])).mean().shape == (1, 64, 64, 3)
    assert shapes(decoder) == {
        "h1/kernel": (340, 1024),
        "h1/bias": (1024,),
        "h2/kernel": (5, 5, 128, 1024),
        "h2/bias": (128,),
        "h3/kernel": (5, 5, 64, 128),
        "h3/bias": (64,),
        "h4/kernel": (6, 6, 32, 64),
        "h4/bias": (32,),
        "h5/kernel": (6, 6, 3, 32),
        "h5/bias": (3,),
    }


def test_paper_size_heads():
    actor, value = ActionDecoder(6, 3, 400), DenseDecoder((), 3, 400)
    expected = {
        "h0/kernel": (340, 400),
        "h1/kernel": (400, 400),
        "h2/kernel": (400, 400),
        **{f"h{index}/bias": (400,) for index in range(3)},
    }
    for network, outputs in ((actor, 12), (value, 1)):
        network(tf.zeros([1, 340]))
        hout = {"hout/kernel": (400, outputs), "hout/bias": (outputs,)}
        assert shapes(network) == expected | hout
