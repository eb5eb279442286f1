import math

import numpy as np
import pytest
import tensorflow as tf
from ruamel.yaml import YAML

from dreamer_bird.agent.actor_critic import Rollouts
from dreamer_bird.agent.objectives import (
    OBJECTIVES,
    Imagined,
    actor_value_losses,
    bird,
    confidence_weights,
    dreamer,
    soft_bird,
    start_weights,
)
from dreamer_bird.config import CONFIG_FILE

# Two rollouts of three steps. By hand, at lambda 0.5: V_2 = (28, 34), V_1 = (15.5, 20.5), the
# decay is (1, 0.5), and the errors v - V are (-5.5, -0.5) and (2, 6).
LAMBDA = 0.5
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@pytest.fixture
def imagined():
    return Imagined(
        start_weight=tf.ones([2]),
        reward=tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        value=tf.constant([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]),
        discount=tf.fill([3, 2], 0.5),
        entropy=tf.constant([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]),
        log_prob=tf.constant([[-1.0, -2.0], [-1.0, -3.0], [-1.0, -1.0]]),
        gamma=0.5,
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
    weights = confidence_weights(tf.constant(log_prob), tf.ones([200]), clip=1e6).numpy()
    confidence = log_prob.sum(0, dtype=np.float64)
    expected = 1 + (confidence - confidence.mean()) / confidence.std()
    np.testing.assert_allclose(weights, expected, atol=1e-4)
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert weights.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("clip", [0.0, 0.5, 1.0])
def test_confidence_weights_are_clipped(clip):
    log_prob = tf.random.stateless_normal([15, 200], [0, 1], mean=-40, stddev=9)
    free = confidence_weights(log_prob, tf.ones([200]), clip=1e6).numpy()
    weights = confidence_weights(log_prob, tf.ones([200]), clip).numpy()
    assert (weights.min(), weights.max()) == (1 - clip, 1 + clip)
    inside = np.abs(free - 1) < clip
    np.testing.assert_array_equal(weights[inside], free[inside])


@pytest.mark.parametrize("value", [0.0, -1.25, -37.3, 61.7])
def test_equally_likely_rollouts_have_weight_one(value):
    weights = confidence_weights(tf.fill([15, 2500], value), tf.ones([2500]), clip=1.0).numpy()
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


def test_the_actor_learns_by_rewards_and_values(imagined):
    """V_2 = r_2 + 0.5 (v_2 / 2 + v_3 / 2) and V_1 = r_1 + 0.5 (v_2 / 2 + V_2 / 2), the first
    rollout's, and the loss is -(V_1 + 0.5 V_2) / 4."""
    with tf.GradientTape() as tape:
        tape.watch([imagined.reward, imagined.value])
        actor_loss, _ = losses(imagined, dreamer)
    by_reward, by_value = tape.gradient(actor_loss, [imagined.reward, imagined.value])
    np.testing.assert_allclose(by_reward[:, 0], [-1 / 4, -0.75 / 4, 0], rtol=1e-6)
    np.testing.assert_allclose(by_value[:, 0], [0, -0.25 / 4, -0.375 / 4], rtol=1e-6)


def test_value_loss_does_not_move_its_target(imagined):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(imagined[:-1])
        _, value_loss = losses(imagined, dreamer)
    assert tape.gradient(value_loss, imagined.reward) is None
    assert tape.gradient(value_loss, imagined.discount) is None
    # decay * (v - V) / 4, and nothing from the values inside of V.
    expected = [[-5.5 / 4, -0.5 / 4], [0.5 * 2 / 4, 0.5 * 6 / 4], [0, 0]]
    np.testing.assert_allclose(tape.gradient(value_loss, imagined.value), expected, rtol=1e-6)


def test_terminal_starts_by_hand(imagined):
    """The second rollout starts from a terminal state: all losses are those of the first alone."""
    imagined = imagined._replace(start_weight=start_weights(tf.constant([1.0, 0.0])))
    actor_loss, value_loss = losses(imagined, dreamer)
    assert float(actor_loss) == pytest.approx(-(15.5 + 14) / 2)
    assert float(value_loss) == pytest.approx((15.125 + 1) / 2 + 0.75 * HALF_LOG_2PI)
    # The only rollout that counts is as likely as all that count: weight 1.
    actor_loss, _ = losses(imagined, bird, alpha=2.0, clip=0.5)
    assert float(actor_loss) == pytest.approx(-(15.5 + 14) / 2 - 2 * 0.1)
    weights = confidence_weights(tf.constant([[1.0, 3.0, 90.0]]), tf.constant([1.5, 1.5, 0]), 1.0)
    np.testing.assert_allclose(weights, [0, 2, 1], atol=1e-6)  # 1 where nothing counts


def random_imagined(rollouts, start):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4, 5, rollouts)).astype(np.float32)
    reward, value, entropy, log_prob = map(tf.constant, draws)
    discount = tf.constant(rng.uniform(0, 0.9, (5, rollouts)), tf.float32)
    weight = start_weights(tf.constant(start))
    return Imagined(weight, reward, value, discount, entropy, log_prob, gamma=0.9)


@pytest.mark.parametrize("objective", OBJECTIVES.values())
@pytest.mark.parametrize("weight_value_loss", [False, True])
def test_rollouts_from_terminal_states_change_nothing(objective, weight_value_loss):
    """Values and gradients are those of a batch that lacks them."""
    all_of_them = random_imagined(8, np.array([1, 0] * 4, np.float32))
    others = all_of_them._replace(
        **{key: getattr(all_of_them, key)[..., ::2] for key in Imagined._fields[1:-1]},
        start_weight=tf.ones([4]),
    )
    found = []
    for imagined in (all_of_them, others):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([imagined.reward, imagined.value, imagined.entropy])
            both = losses(imagined, objective, 0.3, 1.0, weight_value_loss)
        gradients = [
            tf.convert_to_tensor(tape.gradient(loss, x, unconnected_gradients="zero"))
            for loss in both
            for x in (imagined.reward, imagined.value, imagined.entropy)
        ]
        found.append((both, gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for mine, other in zip(our_gradients, their_gradients, strict=True):
        np.testing.assert_allclose(mine[:, ::2], other, rtol=1e-4, atol=1e-6)
        assert not mine.numpy()[:, 1::2].any()


@pytest.mark.parametrize("objective", OBJECTIVES.values())
def test_nothing_is_learned_where_every_start_is_terminal(objective):
    imagined = random_imagined(8, np.zeros(8, np.float32))
    assert [float(loss) for loss in losses(imagined, objective, 0.3, 1.0, True)] == [0, 0]


def test_no_entropy_is_paid_in_terminal_states(imagined):
    discount = tf.constant([[0.5, 0.0], [0.25, 0.5], [0.5, 0.5]])
    soft_reward = soft_bird(imagined._replace(discount=discount), 10.0, 0.0).reward
    # All of it where the episode goes on, half where that is as likely as not.
    np.testing.assert_allclose(soft_reward, [[1 + 3, 2], [3 + 2.5, 4 + 6]])


# Whole updates of an agent, run eagerly: tracing would take most of the time.


def update(make_agent, batch, seed, **flags):
    """Return metrics, and every weight and moment after one update."""
    agent = make_agent(**flags)
    metrics = agent._traced["update"].python_function(batch, seed)
    variables = agent.named_variables().items()
    return metrics, {name: variable.numpy() for name, variable in variables}


@pytest.fixture(scope="module")
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


def test_every_variant_but_the_one_that_plans_has_an_objective():
    variants = YAML(typ="safe", pure=True).load(CONFIG_FILE)["variants"]
    assert {*OBJECTIVES, "planet"} == variants.keys()


@pytest.mark.parametrize("variant", OBJECTIVES)
def test_an_update_from_terminal_states_leaves_actor_and_value(make_agent, batch, seed, variant):
    flags = {"variant": variant, "objective__alpha": 0}
    ended = {**batch, "discount": tf.zeros_like(batch["discount"])}
    metrics, _ = update(make_agent, ended, seed, **flags)
    assert float(metrics["actor_grad_norm"]) == float(metrics["value_grad_norm"]) == 0
    assert float(metrics["model_grad_norm"]) > 0


@pytest.mark.parametrize("variant", OBJECTIVES)
def test_terminal_starts_give_actor_and_value_no_gradient(make_agent, seed, variant):
    """Gradients of their weights are what the other half of the rollouts gives alone."""
    agent = make_agent(variant=variant, objective__alpha=0.3, objective__weight_value_loss=True)
    start = {
        key: tf.random.stateless_normal([1, 8, value.shape[-1]], seed)
        for key, value in agent.world_model.rssm.initial(8).items()
    }
    found = []
    for half in (False, True):
        with tf.GradientTape(persistent=True) as tape:
            discount = tf.constant([[1.0, 0.0] * 4])
            rollouts = agent.actor_critic.imagine(agent.world_model, start, discount, seed)
            if half:
                states, entropies = tf.nest.map_structure(lambda x: x[:, ::2], rollouts[1:])
                rollouts = Rollouts(tf.ones([4]), states, entropies)
            actor_loss, value_loss, _ = agent.actor_critic.losses(agent.world_model, rollouts)
        actor = tape.gradient(actor_loss, agent.actor_critic.actor.trainable_variables)
        value = tape.gradient(value_loss, agent.actor_critic.value.trainable_variables)
        found.append([actor_loss, value_loss, *actor, *value])
    for ours, theirs in zip(*found, strict=True):
        size = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * size)
    assert all(np.any(gradient) for gradient in found[1])
