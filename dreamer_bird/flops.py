"""Floating-point operations of a training step, counted from the sizes of the networks."""

from dreamer_bird.config import Config

# Square feature maps of 64x64 images: sides and kernels, forwards and backwards.
_ENCODER = ((31, 4, 3, 1), (14, 4, 1, 2), (6, 4, 2, 4), (2, 4, 4, 8))  # output, kernel, channels
_DECODER = ((1, 5, 32, 4), (5, 5, 4, 2), (13, 6, 2, 1), (30, 6, 1, 3))  # input, kernel, channels


def flops_per_step(config: Config, actions: int) -> int:
    """Return the operations of the matrix products and convolutions of one update.

    A multiplication and an addition are two. Gradients by weights and by inputs cost as much as
    the forward pass each; those that nothing needs are not counted: of the images, and in
    imagination of the world model's weights.
    """
    model, objective = config.model, config.objective
    frames = config.replay.batch * config.replay.length
    imagined = frames * objective.horizon
    feat = model.stoch + model.deter
    prior, posterior = _rssm(config, actions)
    reward = _mlp(feat, model.units, model.reward_layers, 1)
    discount = _mlp(feat, model.units, model.discount_layers, 1) if model.discount_head else 0
    actor = _mlp(feat, config.actor.units, config.actor.layers, 2 * actions)
    value = _mlp(feat, config.value.units, config.value.layers, 1)
    first, *others = encoder(model.depth)
    real = 3 * (sum(others) + decoder(model.depth, feat) + prior + posterior + reward + discount)
    real += 2 * first
    # The actor's input gets no gradient; the value's gives one to its weights and one to its input.
    dreamt = 2 * (prior + reward + discount) + 3 * (actor + value)
    return frames * real + imagined * dreamt


def encoder(depth: int) -> list[int]:
    """Return the operations of each layer's forward pass for one image."""
    return [
        2 * side**2 * kernel**2 * (inputs * depth if side < 31 else inputs) * outputs * depth
        for side, kernel, inputs, outputs in _ENCODER
    ]


def decoder(depth: int, feat: int) -> int:
    """Return the operations of the forward pass for one image."""
    total = _dense(feat, 32 * depth)
    for side, kernel, inputs, outputs in _DECODER:
        channels = outputs if side == 30 else outputs * depth
        total += 2 * side**2 * kernel**2 * inputs * depth * channels
    return total


def _rssm(config: Config, actions: int) -> tuple[int, int]:
    model = config.model
    prior = _dense(model.stoch + actions, model.hidden)
    prior += 3 * _dense(model.hidden + model.deter, model.deter)
    prior += _dense(model.deter, model.hidden) + _dense(model.hidden, 2 * model.stoch)
    posterior = _dense(model.deter + 32 * model.depth, model.hidden)
    return prior, posterior + _dense(model.hidden, 2 * model.stoch)


def _mlp(inputs: int, units: int, layers: int, outputs: int) -> int:
    hidden = _dense(inputs, units) + (layers - 1) * _dense(units, units)
    return hidden + _dense(units, outputs)


def _dense(inputs: int, outputs: int) -> int:
    return 2 * inputs * outputs
