"""Counted operations against those that TensorFlow's profiler finds in the graphs."""

import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from dreamer_bird.agent.flops import decoder, encoder, flops_per_step
from dreamer_bird.agent.networks import ConvEncoder
from dreamer_bird.config import load
from dreamer_bird.envs.spaces import Spec

MATRIX = ("MatMul", "Conv2D")


def profiled(function, *shapes):
    """Return the operations of the products in the graph of a function of float32 tensors."""
    specs = [tf.TensorSpec(shape) for shape in shapes]
    graph = convert_variables_to_constants_v2(tf.function(function).get_concrete_function(*specs))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    found = tf.compat.v1.profiler.profile(graph.graph, cmd="op", options=options)
    return sum(child.float_ops for child in found.children if child.name in MATRIX)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_encoder(size):
    shape = size, size, 3
    network = ConvEncoder(depth=8, shape=shape)
    network({"image": tf.zeros([1, *shape])})
    expected = profiled(lambda image: network({"image": image}), [1, *shape])
    assert sum(encoder(8, size)) == expected > 0


def test_decoder():
    """A transposed convolution multiplies as often as the convolution whose gradient it is."""
    total = profiled(lambda feat, kernel: feat @ kernel, [1, 20], [20, 256])
    sides, kernels, channels = (1, 5, 13, 30, 64), (5, 5, 6, 6), (256, 32, 16, 8, 3)
    for layer, kernel in enumerate(kernels):
        inputs, outputs = channels[layer], channels[layer + 1]
        total += profiled(
            lambda image, weights: tf.nn.conv2d(image, weights, 2, "VALID"),
            [1, sides[layer + 1], sides[layer + 1], outputs],
            [kernel, kernel, outputs, inputs],
        )
    assert decoder(8, 20) == total


def test_a_step_is_the_sum_of_its_parts():
    base = {"replay.batch": 1, "replay.length": 2, "objective.horizon": 2}
    pixels = Spec({"image": (64, 64, 3)}, actions=1)
    one = flops_per_step(load(base, ["debug"]), pixels)
    assert flops_per_step(load(base | {"replay.batch": 3}, ["debug"]), pixels) == 3 * one
    longer = flops_per_step(load(base | {"objective.horizon": 4}, ["debug"]), pixels)
    longest = flops_per_step(load(base | {"objective.horizon": 6}, ["debug"]), pixels)
    assert longest - longer == longer - one > 0
    # Half the steps decoded, and imagined from.
    drawn = base | {"model.decode_steps": 1, "objective.imagine_starts": 1}
    half = flops_per_step(load(drawn, ["debug"]), pixels)
    image = decoder(4, 24)
    assert one - half == 3 * image + (longer - one) / 2
    # Counted by hand for networks of one unit: see flops.py for what is multiplied by what.
    tiny = {f"model.{key}": 1 for key in ("depth", "deter", "stoch", "hidden", "units")}
    tiny |= {"actor.units": 1, "value.units": 1, "actor.layers": 1, "value.layers": 1}
    tiny |= {"model.reward_layers": 1}
    config = load(base | tiny, ["debug"])
    convolutions = 2 * 31**2 * 16 * 3, 2 * 14**2 * 16 * 2, 2 * 6**2 * 16 * 8, 2 * 2**2 * 16 * 32
    image = 2 * (2 * 32 + 25 * 32 * 4 + 25 * 25 * 4 * 2 + 169 * 36 * 2 + 900 * 36 * 3)
    prior, posterior = 2 * (2 + 3 * 2 + 1 + 2), 2 * (33 + 2)
    reward, actor, value = 2 * (2 + 1), 2 * (2 + 2), 2 * (2 + 1)
    real = 3 * (sum(convolutions[1:]) + image + prior + posterior + reward) + 2 * convolutions[0]
    # Of two layers each, the first of two inputs: whose gradient the value's has alone.
    dreamt = 2 * (prior + reward) + (3 * actor - 2 * 2) + (4 * value - 2 * 2)
    assert flops_per_step(config, pixels) == 2 * real + 4 * dreamt
    state = 2 * 2 * 5 + 3 * (2 * 2 * 1 + 2 * (2 + 2 + 5))  # three layers each way, five numbers
    posterior = 2 * (2 + 2)
    real = state + 3 * (prior + posterior + reward)
    assert flops_per_step(config, Spec({"state": (5,)}, 1)) == 2 * real + 4 * dreamt
