"""Floating-point operations of a training step, counted from the sizes of the networks."""

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

    model, objective, actions = config.model, config.objective, spec.actions
    frames = config.replay.batch * config.replay.length
    decoded = config.replay.batch * (model.decode_steps or config.replay.length)
    imagined = (
        config.replay.batch * (objective.imagine_starts or config.replay.length) * objective.horizon
    )
    feat = model.stoch + model.deter
    first, encoders, embed, decoders = _observations(config, spec, feat)
    prior, posterior = _rssm(config, actions, embed)
    reward = _mlp(feat, model.units, model.reward_layers, 1)
    discount = _mlp(feat, model.units, model.discount_layers, 1) if model.discount_head else 0
    outputs = actions if spec.discrete else 2 * actions
    actor = _mlp(feat, config.actor.units, config.actor.layers, outputs)
    value = _mlp(feat, config.value.units, config.value.layers, 1)
    real = 2 * first + 3 * (encoders + prior + posterior + reward + discount)
    # The actor's input gets no gradient; the value's gives one to its weights and one to its input.
    dreamt = 2 * (prior + reward + discount) + 3 * (actor + value)
    behaviour = imagined * dreamt if config.variant in OBJECTIVES else 0
    return frames * real + decoded * 3 * decoders + behaviour


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
        layers = encoder(model.depth, shape[0])
        first, others = layers[0], sum(layers[1:])
        embed = encoder_sides(shape[0])[-1] ** 2 * 2 ** (len(layers) - 1) * model.depth
        decoders = decoder(model.depth, feat, shape[0])
    if shape := spec.observation.get("state"):
        first += _dense(shape[0], model.units)
        others += (model.state_layers - 1) * _dense(model.units, model.units)
        embed += model.units
        decoders += _mlp(feat, model.units, model.state_layers, shape[0])
    return first, others, embed, decoders


def _rssm(config: Config, actions: int, embed: int) -> tuple[int, int]:
    model = config.model
    prior = _dense(model.stoch + actions, model.hidden)
    prior += 3 * _dense(model.hidden + model.deter, model.deter)
    prior += _dense(model.deter, model.hidden) + _dense(model.hidden, 2 * model.stoch)
    posterior = _dense(model.deter + embed, model.hidden)
    return prior, posterior + _dense(model.hidden, 2 * model.stoch)


def _mlp(inputs: int, units: int, layers: int, outputs: int) -> int:
    hidden = _dense(inputs, units) + (layers - 1) * _dense(units, units)
    return hidden + _dense(units, outputs)


def _dense(inputs: int, outputs: int) -> int:
    return 2 * inputs * outputs
