import math

import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.objectives import (
    OBJECTIVES,
    Imagined,
    actor_value_losses,
    bird,
    confidence_weights,
    dreamer,
    soft_bird,
)

# Two rollouts of three steps. By hand, at lambda 0.5: V_2 = (28, 34), V_1 = (15.5, 20.5), the
# decay is (1, 0.5), and the errors v - V are (-5.5, -0.5) and (2, 6).
LAMBDA = 0.5
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@pytest.fixture
def imagined():
    return Imagined(
        reward=tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        value=tf.constant([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]),
        discount=tf.fill([3, 2], 0.5),
        entropy=tf.constant([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        log_prob=tf.constant([[-1.0, -2.0], [-1.0, -3.0], [-1.0, -1.0]]),
    )


def losses(imagined, objective, alpha=0.0, clip=0.0, weight_value_loss=False):
    terms = objective(imagined, alpha, clip)
    return actor_value_losses(imagined, terms, LAMBDA, weight_value_loss)


def test_dreamer_by_hand(imagined):
    actor_loss, value_loss = losses(imagined, dreamer, alpha=2.0, clip=0.5)  # it ignores both
    assert float(actor_loss) == pytest.approx(-(15.5 + 20.5 + 14 + 17) / 4)
    squares = (15.125 + 0.125 + 1 + 9) / 4
    assert float(value_loss) == pytest.approx(squares + 0.75 * HALF_LOG_2PI)


def test_bird_by_hand(imagined):
    # Confidences -3 and -6 are 1 and -1 when standardised: weights 2 and 0, clipped 1.5 and 0.5.
    actor_loss, value_loss = losses(imagined, bird, alpha=2.0, clip=0.5)
    weighted = (1.5 * (15.5 + 14) + 0.5 * (20.5 + 17)) / 4
    assert float(actor_loss) == pytest.approx(-weighted - 2 * (0.1 + 0.2) / 2)
    assert float(value_loss) == float(losses(imagined, dreamer)[1])


def test_weight_value_loss_by_hand(imagined):
    actor_loss, value_loss = losses(imagined, bird, clip=0.5, weight_value_loss=True)
    weighted = (1.5 * (15.125 + 1) + 0.5 * (0.125 + 9)) / 4
    constant = (1.5 * 1.5 + 0.5 * 1.5) / 4 * HALF_LOG_2PI
    assert float(value_loss) == pytest.approx(weighted + constant)
    assert float(actor_loss) == float(losses(imagined, bird, clip=0.5)[0])


@pytest.mark.parametrize("objective", [dreamer, soft_bird])
def test_weight_value_loss_changes_nothing_without_weights(imagined, objective):
    weighted = losses(imagined, objective, alpha=2.0, weight_value_loss=True)
    plain = losses(imagined, objective, alpha=2.0)
    assert [float(loss) for loss in weighted] == [float(loss) for loss in plain]


def test_soft_bird_by_hand(imagined):
    # Soft rewards (1.6, 2.8) and (4, 5.2): V_2 = (29, 35.2), V_1 = (16.35, 21.6).
    actor_loss, value_loss = losses(imagined, soft_bird, alpha=2.0, clip=0.5)
    assert float(actor_loss) == pytest.approx(-(16.35 + 21.6 + 14.5 + 17.6) / 4)
    squares = (6.35**2 + 1.6**2 + 0.5 * 1 + 0.5 * 4.8**2) / 8
    assert float(value_loss) == pytest.approx(squares + 0.75 * HALF_LOG_2PI)


def test_soft_reward_takes_the_entropy_of_its_own_state(imagined):
    # r_h is the reward of s_h, and the entropy at s_h stands in row h, after that of s_0.
    soft_reward = soft_bird(imagined, 10.0, 0.0).reward
    np.testing.assert_allclose(soft_reward, [[1 + 3, 2 + 4], [3 + 5, 4 + 6]])


def test_bird_bonus_is_the_entropy_at_real_states_alone(imagined):
    with tf.GradientTape() as tape:
        tape.watch(imagined.entropy)
        actor_loss, _ = losses(imagined, bird, alpha=2.0, clip=1.0)
    expected = [[-1, -1], [0, 0], [0, 0]]
    np.testing.assert_array_equal(tape.gradient(actor_loss, imagined.entropy), expected)


def test_confidence_weights_are_standardised_around_one():
    log_prob = np.random.default_rng(0).normal(-40, 9, (15, 200)).astype(np.float32)
    weights = confidence_weights(tf.constant(log_prob), clip=1e6).numpy()
    confidence = log_prob.sum(0, dtype=np.float64)
    expected = 1 + (confidence - confidence.mean()) / confidence.std()
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1.0])
def test_confidence_weights_are_clipped(clip):
    log_prob = tf.random.stateless_normal([15, 200], [0, 1], mean=-40, stddev=9)
    free = confidence_weights(log_prob, clip=1e6).numpy()
    weights = confidence_weights(log_prob, clip).numpy()
    assert (weights.min(), weights.max()) == (1 - clip, 1 + clip)
    inside = np.abs(free - 1) < clip
    np.testing.assert_array_equal(weights[inside], free[inside])


@pytest.mark.parametrize("value", [0.0, -1.25, -37.3, 61.7])
def test_equally_likely_rollouts_have_weight_one(value):
    weights = confidence_weights(tf.fill([15, 2500], value), clip=1.0).numpy()
    np.testing.assert_allclose(weights, 1, atol=0.01)


def test_confidence_weights_carry_no_gradient(imagined):
    with tf.GradientTape() as tape:
        tape.watch(imagined.log_prob)
        loss = tf.add_n(losses(imagined, bird, alpha=2.0, clip=9.0, weight_value_loss=True))
    assert tape.gradient(loss, imagined.log_prob) is None


def test_discount_weights_carry_no_gradient(imagined):
    with tf.GradientTape() as tape:
        tape.watch(imagined.discount)
        actor_loss, _ = losses(imagined, dreamer)
    # Through V alone, first rollout: (30 + 28) / 2 by g_1; 0.5 * 50 + 0.5 * 0.5 * 50 by g_2.
    gradient = tape.gradient(actor_loss, imagined.discount)
    np.testing.assert_allclose(gradient[:, 0], [-29 / 4, -37.5 / 4, 0], rtol=1e-6)


def test_value_loss_does_not_move_its_target(imagined):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(imagined)
        _, value_loss = losses(imagined, dreamer)
    assert tape.gradient(value_loss, imagined.reward) is None
    assert tape.gradient(value_loss, imagined.discount) is None
    # decay * (v - V) / 4, and nothing from the values inside of V.
    expected = [[-5.5 / 4, -0.5 / 4], [0.5 * 2 / 4, 0.5 * 6 / 4], [0, 0]]
    np.testing.assert_allclose(tape.gradient(value_loss, imagined.value), expected, rtol=1e-6)


# Whole updates of an agent, run eagerly: tracing would take most of the time.


def update(make_agent, batch, seed, **flags):
    """Return metrics, and every weight and moment after one update."""
    agent = make_agent(**flags)
    metrics = agent._train_step.python_function(batch, seed)
    variables = agent.named_variables().items()
    return metrics, {name: variable.numpy() for name, variable in variables}


@pytest.fixture
def dreamer_update(make_agent, batch, seed):
    return update(make_agent, batch, seed, variant="dreamer")


def changed(one, other):
    """Return the parts, networks or optimizers, that differ in any bit."""
    return {name.split("/")[0] for name in one if one[name].tobytes() != other[name].tobytes()}


@pytest.mark.parametrize("variant", ["bird", "soft_bird"])
def test_variants_without_their_terms_are_dreamer_to_the_bit(
    make_agent, batch, seed, dreamer_update, variant
):
    off = {"objective__alpha": 0, "objective__confidence_clip": 0}
    metrics, state = update(make_agent, batch, seed, variant=variant, **off)
    for name in ("actor_loss", "value_loss", "actor_grad_norm", "value_grad_norm"):
        assert float(metrics[name]) == float(dreamer_update[0][name])
    assert not changed(state, dreamer_update[1])  # first moments are a tenth of the gradients


def test_bird_changes_the_actor_alone(make_agent, batch, seed, dreamer_update):
    _, state = update(make_agent, batch, seed, variant="bird")
    assert changed(state, dreamer_update[1]) == {"actor", "actor_optimizer"}


@pytest.mark.parametrize(
    "flags",
    [{"variant": "soft_bird"}, {"variant": "bird", "objective__weight_value_loss": True}],
)
def test_soft_returns_and_weighted_value_loss_reach_the_value(
    make_agent, batch, seed, dreamer_update, flags
):
    _, state = update(make_agent, batch, seed, **flags)
    parts = {"actor", "actor_optimizer", "value", "value_optimizer"}
    assert changed(state, dreamer_update[1]) == parts


def test_every_variant_has_an_objective():
    assert set(OBJECTIVES) == {"dreamer", "bird", "soft_bird"}
