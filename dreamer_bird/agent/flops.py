"""Floating-point operations of a training step, counted from the sizes of the networks."""

from itertools import pairwise

from dreamer_bird.agent.geometry import KERNEL, decoder_kernels, encoder_sides
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec


def flops_per_step(config: Config, spec: Spec) -> int:
    """Return the operations of the matrix products and convolutions of one update.

    A multiplication and an addition are two. Gradients by weights and by inputs cost as much as
    the forward pass each; those that nothing needs are not counted: of the observations, and in
    imagination of the world model's weights. A variant that plans imagines nothing in an update.
    """
    from dreamer_bird.agent.objectives import OBJECTIVES  # with TensorFlow, which help does without

    model, actor, value, objective = config.model, config.actor, config.value, config.objective
    batch, length = config.replay.batch, config.replay.length
    decoded = batch * (model.decode_steps or length)
    imagined = batch * (objective.imagine_starts or length) * objective.horizon
    feat, statistics = model.stoch + model.deter, 2 * model.stoch
    first, encoders, embed, decoders = _observations(config, spec, feat)
    prior = _dense(model.stoch + spec.actions, model.hidden)
    prior += 3 * _dense(model.hidden + model.deter, model.deter)
    prior += _dense(model.deter, model.hidden, statistics)
    posterior = _dense(model.deter + embed, model.hidden, statistics)
    heads = _dense(feat, *[model.units] * model.reward_layers, 1)
    if model.discount_head:
        heads += _dense(feat, *[model.units] * model.discount_layers, 1)
    outputs = spec.actions if spec.discrete else 2 * spec.actions
    actor_layers, value_layers = [actor.units] * actor.layers, [value.units] * value.layers
    # Forward and backwards, to the weights and to all inputs but the features; and the value's once
    # more, to the features, for the actor.
    behaviour = 2 * _dense(feat, *actor_layers, outputs) + _dense(*actor_layers, outputs)
    behaviour += 3 * _dense(feat, *value_layers, 1) + _dense(*value_layers, 1)
    real = 2 * first + 3 * (encoders + prior + posterior + heads)
    dreamt = 2 * (prior + heads) + behaviour if config.variant in OBJECTIVES else 0
    return batch * length * real + decoded * 3 * decoders + imagined * dreamt


def encoder(depth: int, size: int = 64) -> list[int]:
    """Return the operations of each layer's forward pass for one image of that side."""
    inputs, operations = 3, []
    for index, side in enumerate(encoder_sides(size)):
        outputs = 2**index * depth
        operations.append(2 * side**2 * KERNEL**2 * inputs * outputs)
        inputs = outputs
    return operations


def decoder(depth: int, feat: int, size: int = 64) -> int:
    """Return the operations of the forward pass for one image of that side."""
    side, inputs, total = 1, 32 * depth, _dense(feat, 32 * depth)
    kernels = decoder_kernels(size)
    for left, kernel in zip(reversed(range(len(kernels))), kernels, strict=True):
        outputs = 2 ** (left - 1) * depth if left else 3
        total += 2 * side**2 * kernel**2 * inputs * outputs
        side, inputs = 2 * (side - 1) + kernel, outputs
    return total


def _observations(config: Config, spec: Spec, feat: int) -> tuple[int, int, int, int]:
    """Return operations of the encoders' first layers and of the others, embedding, decoders."""
    model, first, others, embed, decoders = config.model, 0, 0, 0, 0
    if shape := spec.observation.get("image"):
        first, *later = encoder(model.depth, shape[0])
        others = sum(later)
        embed = encoder_sides(shape[0])[-1] ** 2 * 2 ** len(later) * model.depth
        decoders = decoder(model.depth, feat, shape[0])
    if shape := spec.observation.get("state"):
        layers = [model.units] * model.state_layers
        first += _dense(*shape, model.units)
        others += _dense(*layers)
        embed += model.units
        decoders += _dense(feat, *layers, *shape)
    return first, others, embed, decoders


def _dense(*sizes: int) -> int:
    """Return the operations of dense layers: the size of the input, then of each one's output."""
    return sum(2 * inputs * outputs for inputs, outputs in pairwise(sizes))
