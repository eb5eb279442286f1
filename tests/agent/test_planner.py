"""The planner: known optima, a model's returns step by step, and an agent that acts by plans."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize
from sizes import ACTIONS, SPEC

from dreamer_bird.agent.planner import Planner
from dreamer_bird.agent.rssm import to_carry
from dreamer_bird.config import load
from dreamer_bird.envs.spaces import Spec

PUBLISHED = load().planner
HORIZON = PUBLISHED.horizon
DISCRETE = Spec({"state": (3,)}, 4, discrete=True)


def planner(spec=SPEC, **settings):
    return Planner({**PUBLISHED, **settings}, spec)


def latents(agent, count):
    rng = np.random.default_rng(1)
    shapes = agent.world_model.rssm.initial(count)
    return {key: tf.constant(rng.normal(size=x.shape), tf.float32) for key, x in shapes.items()}


# The search, against optima that are known


def test_the_published_settings():
    assert dict(PUBLISHED) == {"horizon": 12, "iterations": 10, "candidates": 1000, "elites": 100}
    assert load({"variant": "planet"}).train.expl_amount == 0.3


def test_it_finds_the_peak_of_each_environment_inside_and_at_the_bounds(seed):
    peaks = np.random.default_rng(0).uniform(-1.3, 1.3, (3, HORIZON, ACTIONS)).astype(np.float32)
    peaks[:, 0] = [[0.5, -0.3], [2, -2], [0, 0]]

    def returns(candidates):
        return -tf.reduce_sum((candidates - peaks[:, None]) ** 2, [2, 3])

    plan = planner().search(returns, 3, seed)
    np.testing.assert_allclose(plan, np.clip(peaks, -1, 1), atol=0.1)
    assert np.abs(plan).max() <= 1


def test_it_controls_a_linear_system_of_quadratic_costs_as_bounded_least_squares_do(seed):
    """A point that is pushed to zero from 0.3, and from 2, where the bounds on the force count."""
    step, force = np.array([[1, 0.2], [0, 1]]), np.array([0.02, 0.2])
    starts = np.array([[0.3, 0.0], [2.0, 0.0]])
    power = [np.linalg.matrix_power(step, t) for t in range(HORIZON + 1)]
    free = np.concatenate(power[1:])  # states of t = 1 ... H by the start
    forced = np.zeros((HORIZON, 2, HORIZON))  # by the forces
    for t, k in itertools.combinations(range(HORIZON + 1), 2):
        forced[k - 1, :, t] = power[k - 1 - t] @ force
    forced = forced.reshape(-1, HORIZON)

    def returns(candidates):
        state = tf.constant(np.tile(starts[:, None], (1, 1000, 1)), tf.float32)
        total = tf.zeros([2, 1000])
        for action in tf.unstack(candidates[..., 0], axis=2):
            state = state @ tf.constant(step.T, tf.float32) + action[..., None] * force
            total -= tf.reduce_sum(state**2, -1) + 0.1 * action**2
        return total

    plans = planner(Spec({}, 1)).search(returns, 2, seed)[..., 0].numpy()
    rows = np.concatenate([forced, np.sqrt(0.1) * np.eye(HORIZON)])
    for start, found in zip(starts, plans, strict=True):
        target = np.concatenate([-free @ start, np.zeros(HORIZON)])
        best = optimize.lsq_linear(rows, target, (-1, 1))
        np.testing.assert_allclose(found, best.x, atol=0.12)
        cost = np.sum((rows @ found - target) ** 2)
        assert 2 * best.cost <= cost < 2.02 * best.cost + 0.01


def test_it_finds_the_best_sequence_of_discrete_actions(seed):
    wanted = np.random.default_rng(0).integers(4, size=(2, HORIZON))
    weight = np.eye(4, dtype=np.float32)[wanted]

    def returns(candidates):
        np.testing.assert_array_equal(tf.reduce_sum(candidates, -1), 1)
        assert set(np.unique(candidates)) == {0, 1}
        return tf.einsum("bjha,bha->bj", candidates, weight)

    plan = planner(DISCRETE).search(returns, 2, seed)
    np.testing.assert_array_equal(np.argmax(plan, -1), wanted)
    np.testing.assert_allclose(np.max(plan, -1), 1, atol=0.05)


def test_candidates_whose_returns_are_not_finite_are_not_among_the_best(seed):
    def returns(candidates):
        first = candidates[:, :, 0, 0]
        bad = tf.where(first < 0.8, np.inf, np.nan)
        return tf.where(first < 0.5, -((first - 0.3) ** 2), bad)

    settings = {"horizon": 1, "iterations": 3, "candidates": 400, "elites": 20}
    plan = planner(Spec({}, 1), **settings).search(returns, 1, seed).numpy().item()
    assert plan == pytest.approx(0.3, abs=0.02)


def test_it_acts_by_the_first_action_of_the_plan_with_the_highest_returns(agent, seed, monkeypatch):
    peaks = np.random.default_rng(0).uniform(-0.8, 0.8, (3, HORIZON, ACTIONS)).astype(np.float32)

    def returns(model, state, noise, candidates):
        return -tf.reduce_sum((candidates - peaks[:, None]) ** 2, [2, 3])

    planning = planner()
    monkeypatch.setattr(planning, "_imagined_returns", returns)
    action = planning.act(agent.world_model, latents(agent, 3), seed)
    np.testing.assert_allclose(action, peaks[:, 0], atol=0.1)


def test_each_iteration_draws_from_the_fit_to_the_elites_of_the_one_before(seed):
    tried = []

    def returns(candidates):
        tried.append(candidates.numpy())
        return -((candidates[:, :, 0, 0] - 0.3) ** 2)

    settings = {"horizon": 1, "iterations": 2, "candidates": 4000, "elites": 400}
    plan = planner(Spec({}, 1), **settings).search(returns, 1, seed).numpy().item()
    first, second = (each.ravel() for each in tried)
    # Of N(0, 1), of which a sixth lies beyond each bound.
    assert first.mean() == pytest.approx(0, abs=0.05)
    assert np.mean(first == 1) == pytest.approx(0.159, abs=0.02) and first.min() == -1
    first, best = (each[np.argsort(abs(each - 0.3))[:400]] for each in (first, second))
    assert second.mean() == pytest.approx(first.mean(), abs=0.005)
    assert second.std() == pytest.approx(first.std(), rel=0.05)
    assert plan == pytest.approx(best.mean(), abs=1e-6)


# The returns of a model


@pytest.mark.parametrize("task", ["dmc_cartpole_balance", "gym_CartPole-v1"])
@pytest.mark.parametrize("with_value", [False, True])
def test_returns_are_those_of_the_model_step_by_step(make_agent, monkeypatch, task, with_value):
    """One rollout after another; where episodes end, discounts are those of the head."""
    agent = make_agent(task=task)
    model, value = agent.world_model, agent.actor_critic.value
    rng, count, horizon = np.random.default_rng(0), 6, 4
    candidates = rng.uniform(-1, 1, (2, count, horizon, ACTIONS)).astype(np.float32)
    noise = rng.normal(size=(horizon, count, 8)).astype(np.float32)
    start, sizes = latents(agent, 2), []
    plan = Planner(agent._config.planner, SPEC, value if with_value else None)
    head = model.reward
    monkeypatch.setattr(model, "reward", lambda feat: sizes.append(feat.shape) or head(feat))
    found = plan._imagined_returns(model, to_carry(start), noise, candidates)
    assert sizes == [(horizon, 2 * count, 24)]  # once, of all steps
    for b, j in itertools.product(range(2), range(count)):
        state = {key: values[b : b + 1] for key, values in start.items()}
        total, alive = 0.0, 1.0
        for t in range(horizon):
            state = model.rssm.img_step(state, candidates[b, j, t][None], [0, 0])
            state["stoch"] = state["mean"] + state["std"] * noise[t, j]
            feat = model.rssm.get_feat(state)
            last = with_value and t == horizon - 1
            total += alive * (value if last else head)(feat).mode().numpy().item()
            alive *= model.discounts(feat).numpy().item()
        assert float(found[b, j]) == pytest.approx(total, abs=1e-5)
    assert bool(model.discount) == (task == "gym_CartPole-v1")


def test_the_returns_of_planet_are_sums_of_rewards(make_agent):
    agent = make_agent(variant="planet")
    np.testing.assert_array_equal(agent.world_model.discounts(tf.zeros([3, 24])), [1, 1, 1])


# An agent that plans


@pytest.fixture(scope="module", params=[SPEC, DISCRETE], ids=["vectors", "one-hot"])
def planning(request, make_agent):
    flags = {"task": "gym_CartPole-v1", "obs": "state"} if request.param.discrete else {}
    return make_agent(spec=request.param, variant="planet", **flags)


@pytest.fixture
def obs(planning):
    rng = np.random.default_rng(0)
    shapes = planning._spec.observation
    images = {"image": rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)}
    return images if "image" in shapes else {"state": rng.normal(size=(3, 3)).astype(np.float32)}


def test_it_has_and_trains_the_world_model_alone(planning):
    assert planning.actor_critic is None and planning.optimizers.keys() == {"model"}
    parts = {name.split("/")[0] for name in planning.named_variables()}
    assert not parts & {"actor", "value", "actor_optimizer", "value_optimizer"}
    trained = {v.ref() for v in planning.optimizers["model"].weights}
    assert trained == {v.ref() for v in planning.world_model.trainable_variables}


def test_an_update_is_that_of_the_world_model_of_dreamer(make_agent, batch, seed):
    """With the same loss and gradients; nothing is imagined."""
    plans, acts = make_agent(variant="planet"), make_agent(variant="dreamer")
    ours = plans._traced["update"].python_function(batch, seed)
    theirs = acts._traced["update"].python_function(batch, seed)
    assert theirs.keys() - ours.keys() >= {"actor_loss", "value_loss", "imagined_reward"}
    for name, value in ours.items():
        assert float(value) == float(theirs[name]), name
    for name, variable in plans.named_variables().items():
        np.testing.assert_array_equal(variable, acts.named_variables()[name], err_msg=name)


def test_a_seed_gives_a_plan_and_all_environments_are_planned_for_alike(planning, obs, seed):
    together, (latent, _) = planning.act(obs, None, seed, False)
    again, _ = planning.act(obs, None, seed, False)
    np.testing.assert_array_equal(together, again)
    assert together.shape == (3, planning._spec.actions) and np.abs(together).max() <= 1
    if planning._spec.discrete:
        np.testing.assert_allclose(np.sort(together)[:, -1], 1, atol=1e-6)
    plan = planning._planner.act
    for row in range(3):  # each alone, from the same latent state
        alone = {key: value[row : row + 1] for key, value in latent.items()}
        action = plan(planning.world_model, alone, tf.random.split(seed, 3)[1])
        np.testing.assert_allclose(action, together[row : row + 1], atol=1e-4)
    others = [planning.act(obs, None, seed + n, False)[0] for n in range(1, 4)]
    assert not all(np.array_equal(together, other) for other in others)


def test_exploration_is_added_to_the_plan(planning, obs, seed):
    plan, _ = planning.act(obs, None, seed, False)
    explored, (_, carried) = planning.act(obs, None, seed, True)
    np.testing.assert_array_equal(explored, carried)
    expected = planning._explore(plan, tf.random.split(seed, 3)[2])
    np.testing.assert_allclose(explored, expected, atol=1e-5)


def test_no_action_comes_of_a_state_that_is_not_finite(planning, obs, seed):
    latent, action = planning.initial(3)
    latent["deter"] = tf.tensor_scatter_nd_update(latent["deter"], [[1, 0]], [np.nan])
    action, _ = planning.act(obs, (latent, action), seed, False)
    assert np.isfinite(action).all(-1).tolist() == [True, False, True]


def test_an_agent_may_plan_with_its_value_function(make_agent, seed):
    """The plans differ from the policy's actions, and by what counts at the horizon."""
    images = {"image": np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)}
    actions = []
    for with_value in (None, False, True):
        agent = make_agent()
        for layer in (agent.actor_critic.value.hout, agent.world_model.reward.hout):
            layer.kernel.assign(layer.kernel * 10)  # far above what rounding decides
        if with_value is not None:
            agent.use_planner(with_value)
        actions.append(agent.act(images, None, seed, False)[0])
    for one, other in itertools.combinations(actions, 2):
        assert np.abs(one - other).max() > 0.01
