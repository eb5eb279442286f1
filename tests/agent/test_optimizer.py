import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from dreamer_bird.agent import optimizer as optimizer_module
from dreamer_bird.agent.optimizer import Optimizer

SHAPES = {"kernel": (3, 2), "bias": (2,)}
LOSS = tf.constant(1.0)


def make(lr=0.1, clip=1e9, loss_scaling=False):
    rng = np.random.default_rng(0)
    variables = [tf.Variable(rng.normal(size=s), dtype=tf.float32) for s in SHAPES.values()]
    return Optimizer(variables, {"lr": lr, "clip": clip}, loss_scaling, "test")


def random_gradients(step):
    rng = np.random.default_rng(1 + step)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]


def apply(optimizer, gradients, loss=LOSS):
    """Apply gradients of the unscaled loss, as a caller differentiates the scaled one."""
    return optimizer.apply([g * optimizer.loss_scale for g in gradients], loss)[1:]


def state(optimizer):
    names = {v.ref(): name for v, name in zip(optimizer.weights, SHAPES, strict=True)}
    everything = optimizer.named_variables(names)
    everything |= {names[variable.ref()]: variable for variable in optimizer.weights}
    return {name: variable.numpy() for name, variable in everything.items()}


def assert_same(one, other, apart_from=()):
    assert one.keys() == other.keys()
    for name in one.keys() - set(apart_from):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def numpy_adam(values, gradients, first, second, count, lr):
    for value, gradient, m, v in zip(values, gradients, first, second, strict=True):
        m += 0.1 * (gradient - m)
        v += 0.001 * (gradient**2 - v)
        m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.999**count)
        # Keras adds epsilon before the bias correction of the second moment.
        epsilon = 1e-7 / (1 - 0.999**count) ** 0.5
        value -= lr * m_hat / (v_hat**0.5 + epsilon)


def test_adam_against_numpy():
    optimizer = make()
    values = [v.numpy().astype(np.float64) for v in optimizer.weights]
    first, second = ([np.zeros(s) for s in SHAPES.values()] for _ in range(2))
    for step in range(6):
        gradients = random_gradients(step)
        apply(optimizer, gradients)
        numpy_adam(values, gradients, first, second, step + 1, 0.1)
        for ours, expected in (
            (optimizer.weights, values),
            (optimizer.first, first),
            (optimizer.second, second),
        ):
            for one, other in zip(ours, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)
    assert int(optimizer.count) == 6


def test_adam_against_keras():
    optimizer, reference = make(lr=0.01), tf_keras.optimizers.Adam(0.01, epsilon=1e-7)
    twins = [tf.Variable(v) for v in optimizer.weights]
    for step in range(6):
        # Small ones, so that epsilon counts.
        gradients = [g * 1e-6 for g in random_gradients(step)]
        apply(optimizer, gradients)
        reference.apply_gradients(zip(map(tf.constant, gradients), twins, strict=True))
        for one, other in zip(optimizer.weights, twins, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_returns_the_norm_before_clipping():
    optimizer = make(clip=0.5)
    gradients = [np.zeros((3, 2), np.float32), np.array([3, 4], np.float32)]
    gradients[0][1, 1] = 12
    norm, applied = apply(optimizer, gradients)
    assert float(norm) == pytest.approx(13)
    assert bool(applied)


@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_clips_all_gradients_by_their_common_norm(clip):
    optimizer, gradients = make(clip=clip), random_gradients(0)
    apply(optimizer, gradients)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    factor = min(1, clip / norm)
    for first, gradient in zip(optimizer.first, gradients, strict=True):
        np.testing.assert_allclose(first, 0.1 * factor * gradient, rtol=1e-5)


def test_small_gradients_are_not_scaled_up():
    optimizer, gradients = make(clip=100.0), [0.01 * g for g in random_gradients(0)]
    apply(optimizer, gradients)
    np.testing.assert_allclose(optimizer.first[0], 0.1 * gradients[0], rtol=1e-5)


def test_zero_gradients_change_nothing():
    optimizer = make()
    before = state(optimizer)
    norm, applied = apply(optimizer, [np.zeros(s, np.float32) for s in SHAPES.values()])
    assert (float(norm), bool(applied)) == (0, True)
    assert_same(before, state(optimizer), apart_from=["count"])


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "traced"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_what_is_not_finite_is_skipped_and_reported(where, bad, traced):
    optimizer = make()
    step = tf.function(optimizer.apply) if traced else optimizer.apply
    step([tf.constant(g) for g in random_gradients(0)], LOSS)
    before = state(optimizer)
    gradients, loss = random_gradients(1), LOSS
    if where == "loss":
        loss = tf.constant(bad)
    else:
        gradients[1][0] = bad
    _, norm, applied = step([tf.constant(g) for g in gradients], loss)
    assert not bool(applied)
    assert np.isfinite(norm) == (where == "loss")
    assert_same(before, state(optimizer))


def test_an_update_after_a_skipped_one_is_as_if_that_never_was():
    skipping, straight = make(), make()
    bad = [np.full(shape, np.nan, np.float32) for shape in SHAPES.values()]
    for gradients in (random_gradients(0), bad, random_gradients(1)):
        apply(skipping, gradients)
    for gradients in (random_gradients(0), random_gradients(1)):
        apply(straight, gradients)
    assert_same(state(skipping), state(straight))


def test_without_loss_scaling_the_scale_is_one():
    assert float(make().loss_scale) == 1


def test_loss_scale_halves_on_overflow_and_doubles_after_the_interval(monkeypatch):
    monkeypatch.setattr(optimizer_module, "GROWTH_INTERVAL", 3)
    optimizer = make(loss_scaling=True)
    overflow = [np.full(shape, np.inf, np.float32) for shape in SHAPES.values()]
    scales = []
    for step, finite in enumerate([1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1]):
        apply(optimizer, random_gradients(step) if finite else overflow)
        scales.append(float(optimizer.loss_scale) / 2**15)
    # The overflow after two finite updates starts the count anew.
    assert scales == [1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 2, 1, 0.5, 0.5]
    assert int(optimizer.count) == 9


@pytest.mark.parametrize(("value", "first", "last"), [(np.nan, 2.0, 1), (0, 2.0**23, 2**24)])
def test_loss_scale_keeps_within_bounds(monkeypatch, value, first, last):
    """Without the upper one it would be infinite where a loss has no gradient for long."""
    monkeypatch.setattr(optimizer_module, "GROWTH_INTERVAL", 1)
    optimizer = make(loss_scaling=True)
    optimizer.loss_scale.assign(first)
    for _ in range(3):
        apply(optimizer, [np.full(shape, value, np.float32) for shape in SHAPES.values()])
    assert float(optimizer.loss_scale) == last


def test_loss_scale_does_not_change_the_update():
    plain, scaled = make(clip=1.0), make(clip=1.0, loss_scaling=True)
    for step in range(3):
        norms = [apply(optimizer, random_gradients(step))[0] for optimizer in (plain, scaled)]
        assert float(norms[0]) == float(norms[1])
    assert float(scaled.loss_scale) == 2**15
    assert_same(state(plain), state(scaled), apart_from=["loss_scale", "finite_in_a_row"])


def test_differentiating_the_scaled_loss_gives_the_plain_update():
    plain, scaled = make(), make(loss_scaling=True)
    for optimizer in (plain, scaled):
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(v**2) for v in optimizer.weights])
        gradients = tape.gradient(loss, optimizer.weights, optimizer.loss_scale)
        optimizer.apply(gradients, loss)
    assert_same(state(plain), state(scaled), apart_from=["loss_scale", "finite_in_a_row"])


def test_named_variables():
    optimizer = make()
    names = {v.ref(): f"net/{name}" for v, name in zip(optimizer.weights, SHAPES, strict=True)}
    named = optimizer.named_variables(names)
    moments = {f"{moment}/net/{name}" for moment in ("first", "second") for name in SHAPES}
    assert set(named) == {"count", "loss_scale", "finite_in_a_row"} | moments
    assert named["first/net/kernel"] is optimizer.first[0]
    assert named["second/net/bias"] is optimizer.second[1]
    assert not any(slot.trainable for name, slot in named.items() if "/" in name)
