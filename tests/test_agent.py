import inspect
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import ACTIONS, BATCH, LENGTH
from scipy import special, stats

from dreamer_bird import seeds
from dreamer_bird.agent import merge_time, scale_image
from dreamer_bird.distributions import split_seed

NETWORKS = {
    "model": {"encoder", "rssm", "decoder", "reward"},
    "actor": {"actor"},
    "value": {"value"},
}
DREAMER_METRICS = {
    "model_loss",
    "image_loss",
    "reward_loss",
    "div",
    "prior_ent",
    "post_ent",
    "actor_loss",
    "value_loss",
    "model_grad_norm",
    "actor_grad_norm",
    "value_grad_norm",
    "action_ent",
}
MORE_METRICS = {
    "policy_entropy",
    "imagined_reward",
    "imagined_value",
    "confidence_mean",
    "confidence_std",
    "confidence_min",
    "confidence_max",
    "skipped_updates",
}


def dense_shapes(name, sizes):
    """Return the weights of dense layers `h0`, `h1`, ..., `hout` of these sizes."""
    layers = [f"h{index}" for index in range(len(sizes) - 2)] + ["hout"]
    shapes = {}
    for layer, inputs, outputs in zip(layers, sizes, sizes[1:], strict=False):
        shapes |= {f"{name}/{layer}/kernel": (inputs, outputs), f"{name}/{layer}/bias": (outputs,)}
    return shapes


WEIGHTS = {
    "encoder/h1/kernel": (4, 4, 3, 4),
    "encoder/h1/bias": (4,),
    "encoder/h2/kernel": (4, 4, 4, 8),
    "encoder/h2/bias": (8,),
    "encoder/h3/kernel": (4, 4, 8, 16),
    "encoder/h3/bias": (16,),
    "encoder/h4/kernel": (4, 4, 16, 32),
    "encoder/h4/bias": (32,),
    "rssm/img1/kernel": (8 + ACTIONS, 16),
    "rssm/img1/bias": (16,),
    "rssm/gru/kernel": (16, 48),
    "rssm/gru/recurrent_kernel": (16, 48),
    "rssm/gru/bias": (2, 48),
    "rssm/img2/kernel": (16, 16),
    "rssm/img2/bias": (16,),
    "rssm/img3/kernel": (16, 16),
    "rssm/img3/bias": (16,),
    "rssm/obs1/kernel": (16 + 128, 16),
    "rssm/obs1/bias": (16,),
    "rssm/obs2/kernel": (16, 16),
    "rssm/obs2/bias": (16,),
    "decoder/h1/kernel": (24, 128),
    "decoder/h1/bias": (128,),
    "decoder/h2/kernel": (5, 5, 16, 128),
    "decoder/h2/bias": (16,),
    "decoder/h3/kernel": (5, 5, 8, 16),
    "decoder/h3/bias": (8,),
    "decoder/h4/kernel": (6, 6, 4, 8),
    "decoder/h4/bias": (4,),
    "decoder/h5/kernel": (6, 6, 3, 4),
    "decoder/h5/bias": (3,),
    **dense_shapes("reward", [24, 16, 16, 16, 1]),
    **dense_shapes("actor", [24, 16, 16, 16, 2 * ACTIONS]),
    **dense_shapes("value", [24, 16, 16, 16, 1]),
}


def snapshot(agent):
    return {name: variable.numpy() for name, variable in agent.named_variables().items()}


def differing(one, other):
    assert one.keys() == other.keys()
    return {name for name in one if one[name].tobytes() != other[name].tobytes()}


def parts(names):
    return {name.split("/")[0] for name in names}


def eager_step(agent, batch, seed):
    """Run `train_step` without tracing it, which takes most of the time of a few steps."""
    return agent.train_step.python_function(batch, seed)


def make_start(agent, count=5):
    """Return `count` states, as posteriors would be."""
    sizes = {key: value.shape[-1] for key, value in agent.world_model.rssm.initial(1).items()}
    rng = np.random.default_rng(0)
    state = {key: rng.normal(size=(count, size)) for key, size in sizes.items()}
    state["std"] = np.exp(state["std"])
    return {key: tf.constant(value, tf.float32) for key, value in state.items()}


# Weights


def test_names_and_shapes_of_weights(agent):
    named = agent.named_variables()
    weights = {name: v for name, v in named.items() if "optimizer" not in name}
    assert {name: tuple(v.shape) for name, v in weights.items()} == WEIGHTS
    assert {v.dtype for v in weights.values()} == {tf.float32}


def test_names_of_optimizer_state(agent):
    expected = set()
    for key, networks in NETWORKS.items():
        own = [name for name in WEIGHTS if name.split("/")[0] in networks]
        slots = [f"{moment}/{name}" for moment in ("first", "second") for name in own]
        slots += ["count", "loss_scale", "finite_in_a_row"]
        expected |= {f"{key}_optimizer/{slot}" for slot in slots}
    assert set(agent.named_variables()) - set(WEIGHTS) == expected


def test_named_weightsare_all_there_are(agent):
    named = {variable.ref() for variable in agent.named_variables().values()}
    assert named == {variable.ref() for variable in agent.variables}
    assert len(named) == len(agent.named_variables())


def test_the_seed_of_the_config_alone_decides_weights(make_agent):
    one = snapshot(make_agent())
    tf.random.normal([3])
    assert not differing(one, snapshot(make_agent(train__updates=7)))
    changed = differing(one, snapshot(make_agent(seed=1)))
    assert changed == {name for name in WEIGHTS if name.endswith("kernel")}


# Updates


def test_metrics(agent, batch, seed):
    metrics = agent.train_step(batch, seed)
    assert set(metrics) == DREAMER_METRICS | MORE_METRICS
    for name, value in metrics.items():
        assert (value.dtype, value.shape) == (tf.float32, ()), name
        assert np.isfinite(value), name
    assert float(metrics["skipped_updates"]) == 0


def test_traced_equals_eager(agent, make_agent, batch, seed):
    traced = agent.train_step(batch, seed)
    eager = eager_step(make_agent(), batch, seed)
    for name in traced:
        np.testing.assert_allclose(traced[name], eager[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_an_update_is_a_function_of_weights_batch_and_seed(agent, batch, seed):
    before = snapshot(agent)
    updates = []
    for _ in range(2):
        for name, variable in agent.named_variables().items():
            variable.assign(before[name])
        metrics = agent.train_step(batch, seed)
        updates.append(snapshot(agent) | {name: v.numpy() for name, v in metrics.items()})
        tf.random.normal([3])
    assert not differing(*updates)


def test_two_agents_learn_the_same(make_agent, batch, seed):
    agents = make_agent(), make_agent()
    for agent in agents:
        for step in range(2):
            eager_step(agent, batch, seed + step)
    assert not differing(*map(snapshot, agents))


def test_samples_vary_between_updates(make_agent, batch, monkeypatch):
    """Of posteriors, of priors and of imagined states, whatever the weights."""
    agent = make_agent()
    recorded = []

    def record(owner, name, states_of):
        original = getattr(owner, name)

        def recorder(*args, **kwargs):
            result = original(*args, **kwargs)
            for state in states_of(result):
                noise = (state["stoch"] - state["mean"]) / state["std"]
                recorded.append(noise.numpy())
            return result

        monkeypatch.setattr(owner, name, recorder)

    record(agent.world_model.rssm, "observe", lambda result: result)
    record(agent.world_model, "imagine", lambda result: result[:1])
    for update in range(2):
        eager_step(agent, batch, tf.constant(seeds.stateless(0, "train", update)))
    assert len(recorded) == 6
    for one, other in zip(recorded[:3], recorded[3:], strict=True):
        assert (one != other).all()


def test_optimizers_share_no_variables(agent):
    named = agent.named_variables()
    for key, networks in NETWORKS.items():
        own = {v.ref() for v in agent.optimizers[key].weights}
        assert own == {named[n].ref() for n in WEIGHTS if n.split("/")[0] in networks}


@pytest.mark.parametrize("only", NETWORKS)
def test_an_optimizer_changes_its_own_weightsalone(make_agent, batch, seed, monkeypatch, only):
    agent = make_agent()
    for key in NETWORKS.keys() - {only}:
        skip = (tf.zeros([]), tf.constant(False))
        monkeypatch.setattr(agent.optimizers[key], "apply", lambda *_, skip=skip: skip)
    before = snapshot(agent)
    eager_step(agent, batch, seed)
    changed = differing(before, snapshot(agent))
    own = {name for name in WEIGHTS if name.split("/")[0] in NETWORKS[only]}
    assert {name for name in changed if name in WEIGHTS} == own
    assert parts(changed) == NETWORKS[only] | {f"{only}_optimizer"}


def test_the_world_model_learns_nothing_from_actor_and_value(make_agent, batch, seed):
    plain, other = make_agent(), make_agent()
    for network in (other.actor, other.value):
        for variable in network.trainable_variables:
            variable.assign_add(tf.ones_like(variable))
    states = []
    for agent in (plain, other):
        eager_step(agent, batch, seed)
        states.append(snapshot(agent))
    changed = parts(differing(*states))
    assert changed == {"actor", "value", "actor_optimizer", "value_optimizer"}


def test_all_gradients_are_of_the_weights_before_the_update(make_agent, batch, seed, monkeypatch):
    """Skipping the model's update leaves those of actor and value as they were."""
    plain, frozen = make_agent(), make_agent()
    skip = (tf.zeros([]), tf.constant(False))
    monkeypatch.setattr(frozen.optimizers["model"], "apply", lambda *_: skip)
    for agent in (plain, frozen):
        eager_step(agent, batch, seed)
    changed = parts(differing(snapshot(plain), snapshot(frozen)))
    assert changed == NETWORKS["model"] | {"model_optimizer"}


def test_updates_reduce_the_model_loss(agent, batch, seed):
    # Bright and dark frames in turn, with the reward of the bright ones.
    bright = tf.constant(np.indices((BATCH, LENGTH)).sum(0) % 2, tf.float32)
    image = tf.cast(
        tf.ones([BATCH, LENGTH, 64, 64, 3]) * 255 * bright[..., None, None, None], tf.uint8
    )
    batch = {**batch, "image": image, "reward": bright}
    losses = [agent.train_step(batch, seed + step) for step in range(100)]
    constant = 0.5 * math.log(2 * math.pi)
    for name, size in (("image_loss", 64 * 64 * 3), ("reward_loss", 1)):
        first, last = (float(losses[step][name]) - size * constant for step in (0, -1))
        assert 0 < last < 0.9 * first
    assert {int(optimizer.count) for optimizer in agent.optimizers.values()} == {100}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_skips_the_model_update(agent, batch, seed, bad):
    before = snapshot(agent)
    reward = batch["reward"].numpy()
    reward[1, 2] = bad
    metrics = agent.train_step({**batch, "reward": tf.constant(reward)}, seed)
    assert float(metrics["skipped_updates"]) == 1
    assert not np.isfinite(metrics["model_loss"])
    # The imagined rewards do not depend on the real ones.
    changed = parts(differing(before, snapshot(agent)))
    assert changed == {"actor", "value", "actor_optimizer", "value_optimizer"}
    assert float(agent.train_step(batch, seed)["skipped_updates"]) == 0


def test_an_action_that_is_not_a_number_skips_every_update(agent, batch, seed):
    before = snapshot(agent)
    action = tf.fill(batch["action"].shape, np.nan)
    metrics = agent.train_step({**batch, "action": action}, seed)
    assert float(metrics["skipped_updates"]) == 1
    assert not differing(before, snapshot(agent))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(make_agent, batch, seed, precision):
    agent = make_agent(precision=precision)
    expected = eager_step(make_agent(), batch, seed)
    before = snapshot(agent)
    for _ in range(10):  # float16 halves the scale of the loss until no gradient overflows
        metrics = eager_step(agent, batch, seed)
        assert all(np.isfinite(metrics[f"{key}_loss"]) for key in NETWORKS)
        if not metrics["skipped_updates"]:
            break
    for name, value in metrics.items():
        assert value.dtype == tf.float32, name
        assert np.isfinite(value), name
    for name in ("image_loss", "reward_loss", "div", "prior_ent", "post_ent", "model_grad_norm"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=0.1, err_msg=name)
    after = snapshot(agent)
    assert set(WEIGHTS) <= differing(before, after)
    assert {after[name].dtype for name in WEIGHTS} == {np.dtype(np.float32)}
    scale = after["model_optimizer/loss_scale"]
    assert 1 < scale <= 2**15 if precision == "float16" else scale == 1


# The world model


def test_scale_image():
    image = tf.constant([[0, 51, 255]], tf.uint8)
    np.testing.assert_allclose(scale_image(image), [[-0.5, -0.3, 0.5]], atol=1e-6)


def test_merge_time():
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(merge_time(tf.constant(x)), x.reshape(6, 4))


@pytest.mark.parametrize("free_nats, kl_scale", [(0.0, 1.0), (0.0, 2.5), (3.0, 1.0), (3.0, 2.5)])
def test_model_loss(agent, batch, seed, free_nats, kl_scale):
    batch = {**batch, "image": scale_image(batch["image"])}
    model = agent.world_model
    loss, post, metrics = model.loss(batch, seed, free_nats, kl_scale, 10.0)
    # The posterior's own samples, and all distributions written out.
    feat = np.concatenate([post["stoch"], post["deter"]], -1)
    image_error = (model.decoder(feat).mean() - batch["image"]).numpy().astype(np.float64)
    reward_error = (model.reward(feat).mean() - batch["reward"]).numpy()
    constant = 0.5 * math.log(2 * math.pi)
    image_loss = (0.5 * image_error**2 + constant).sum((2, 3, 4)).mean()
    reward_loss = (0.5 * reward_error**2 + constant).mean()
    _, prior = model.rssm.observe(model.encoder(batch), batch["action"], seed=seed)
    (m1, s1), (m2, s2) = ((state["mean"].numpy(), state["std"].numpy()) for state in (post, prior))
    div = (np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5).sum(-1).mean()
    assert 0 < div < 3
    assert float(metrics["image_loss"]) == pytest.approx(image_loss, rel=1e-5)
    assert float(metrics["reward_loss"]) == pytest.approx(reward_loss, rel=1e-5)
    assert float(metrics["div"]) == pytest.approx(div, rel=1e-4)
    assert float(metrics["post_ent"]) == pytest.approx(stats.norm.entropy(0, s1).sum(-1).mean())
    assert float(metrics["prior_ent"]) == pytest.approx(stats.norm.entropy(0, s2).sum(-1).mean())
    expected = image_loss + reward_loss + kl_scale * max(div, free_nats)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_free_nats_stop_the_gradient_of_the_divergence(agent, batch, seed):
    batch = {**batch, "image": scale_image(batch["image"])}
    prior_alone = agent.world_model.rssm.img3.kernel
    for free_nats, learns in ((3.0, False), (0.0, True)):
        with tf.GradientTape() as tape:
            loss, _, _ = agent.world_model.loss(batch, seed, free_nats, 1.0, 10.0)
        assert bool(tape.gradient(loss, prior_alone).numpy().any()) == learns


def test_discounts_without_a_head_are_gamma(agent):
    discounts = agent.world_model.discounts(tf.zeros([3, 5, 24]))
    np.testing.assert_array_equal(discounts, np.full([3, 5], 0.99, np.float32))


def test_discount_head(make_agent, batch, seed):
    agent = make_agent(model__discount_head=True, model__discount_scale=4.0)
    expected = dense_shapes("discount", [24, 16, 16, 16, 1])
    named = agent.named_variables()
    assert {n: tuple(v.shape) for n, v in named.items() if n.startswith("discount")} == expected
    scaled = {**batch, "image": scale_image(batch["image"])}
    scaled["discount"] = tf.constant(np.eye(BATCH, LENGTH), tf.float32)
    loss, post, metrics = agent.world_model.loss(scaled, seed, 3.0, 1.0, 4.0)
    feat = agent.world_model.rssm.get_feat(post)
    probs = agent.world_model.discounts(feat).numpy().astype(np.float64)
    logits = special.logit(probs)
    assert (probs > 0).all() and (probs < 1).all()
    # Learns gamma where the episode goes on and 0 where it ends.
    target = 0.99 * np.eye(BATCH, LENGTH)
    log_prob = target * special.log_expit(logits) + (1 - target) * special.log_expit(-logits)
    assert float(metrics["discount_loss"]) == pytest.approx(-4 * log_prob.mean(), rel=1e-4)
    total = metrics["image_loss"] + metrics["reward_loss"] + metrics["discount_loss"] + 3
    assert float(loss) == pytest.approx(float(total), rel=1e-6)
    before = snapshot(agent)
    step_metrics = eager_step(agent, batch, seed)
    assert np.isfinite(step_metrics["discount_loss"])
    assert set(expected) | set(WEIGHTS) <= differing(before, snapshot(agent))


def test_actor_learns_through_the_discount_head(make_agent, seed):
    """The predicted discounts of imagined states depend on the actions."""
    agent = make_agent(model__discount_head=True)
    with tf.GradientTape() as tape:
        states, _ = agent.world_model.imagine(agent.actor, make_start(agent), 3, seed)
        feat = agent.world_model.rssm.get_feat(states)
        total = tf.reduce_sum(agent.world_model.discounts(feat))
    gradients = tape.gradient(total, agent.actor.trainable_variables)
    assert all(gradient.numpy().any() for gradient in gradients)


# Imagination


def test_imagine_step_by_step(agent, seed):
    """Against single steps of policy and prior, with the seeds that it gives them."""
    model, start, horizon = agent.world_model, make_start(agent), 4
    states, entropies = model.imagine(agent.actor, start, horizon, seed)
    before = start
    for h, step_seed in enumerate(tf.unstack(split_seed(seed, horizon))):
        action_seed, state_seed = tf.unstack(tf.random.split(step_seed))
        dist = agent.actor(model.rssm.get_feat(before))
        # Step 0 acts from the start states, so that theirs is the first entropy.
        np.testing.assert_allclose(
            entropies["gaussian"][h], np.log(dist.std * np.sqrt(2 * np.pi * np.e)).sum(-1), 1e-5
        )
        action = dist.sample(action_seed)
        np.testing.assert_allclose(entropies["tanh"][h], dist.entropy(action_seed), rtol=1e-4)
        before = model.rssm.img_step(before, action, state_seed)
        for key, value in before.items():
            np.testing.assert_allclose(states[key][h], value, atol=1e-5, err_msg=key)
        before = {key: value[h] for key, value in states.items()}
    assert states["stoch"].shape == (horizon, 5, 8)
    assert entropies["tanh"].shape == (horizon, 5)


def test_imagined_samples_differ_between_steps_and_rollouts(agent, seed):
    start = {key: tf.zeros([5, *value.shape[1:]]) for key, value in make_start(agent).items()}
    states, _ = agent.world_model.imagine(agent.actor, start, 4, seed)
    noise = ((states["stoch"] - states["mean"]) / states["std"]).numpy()
    assert len(np.unique(noise)) == noise.size


def test_log_prob_is_the_density_under_the_prior(agent, seed):
    states, _ = agent.world_model.imagine(agent.actor, make_start(agent), 4, seed)
    mean, std, stoch = (states[key].numpy() for key in ("mean", "std", "stoch"))
    expected = stats.norm.logpdf(stoch, mean, std).sum(-1)
    np.testing.assert_allclose(agent.world_model.log_prob(states), expected, rtol=1e-4)


def test_the_actor_learns_through_the_dynamics_and_not_through_its_inputs(agent, seed):
    start = make_start(agent)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(start)
        states, entropies = agent.world_model.imagine(agent.actor, start, 3, seed)
        last, entropy = tf.reduce_sum(states["deter"][-1]), tf.reduce_sum(entropies["tanh"][0])
    weights = agent.actor.trainable_variables
    assert all(gradient.numpy().any() for gradient in tape.gradient(last, weights))
    assert all(gradient.numpy().any() for gradient in tape.gradient(entropy, weights))
    assert tape.gradient(entropy, start["deter"]) is None  # its inputs are given
    assert tape.gradient(last, start["deter"]).numpy().any()  # the dynamics are not


def test_confidence_metrics_tell_the_variants_apart(make_agent, batch, seed):
    keys = [f"confidence_{what}" for what in ("mean", "std", "min", "max")]
    metrics = eager_step(make_agent(variant="dreamer"), batch, seed)
    assert [float(metrics[key]) for key in keys] == [1, 0, 1, 1]
    metrics = eager_step(make_agent(variant="bird"), batch, seed)
    mean, std, low, high = (float(metrics[key]) for key in keys)
    assert 0 <= low < mean < high <= 2
    assert std > 0.1


def test_the_entropy_setting_chooses_the_entropy(make_agent, batch, seed):
    metrics = {
        entropy: eager_step(make_agent(objective__entropy=entropy), batch, seed)
        for entropy in ("gaussian", "tanh")
    }
    assert float(metrics["tanh"]["policy_entropy"]) == float(metrics["tanh"]["action_ent"])
    assert float(metrics["gaussian"]["action_ent"]) == float(metrics["tanh"]["action_ent"])
    # The initial standard deviation is about 5, and tanh only takes entropy away.
    entropy = float(metrics["gaussian"]["policy_entropy"])
    assert entropy == pytest.approx(ACTIONS * 0.5 * math.log(2 * math.pi * math.e * 25), rel=0.05)
    assert float(metrics["tanh"]["policy_entropy"]) < entropy


# Acting


@pytest.fixture
def images():
    return tf.cast(tf.random.stateless_uniform([16, 64, 64, 3], [0, 1], 0, 256, tf.int32), tf.uint8)


def act(agent, images, state, seed, training):
    """Call `policy` eagerly; one test traces it."""
    return agent.policy.python_function(images, state, seed, training)


def test_initial_policy_state_is_zero(agent):
    latent, action = agent.initial(3)
    assert action.shape == (3, ACTIONS)
    assert latent["deter"].shape == (3, 16)
    assert not any(value.numpy().any() for value in (action, *latent.values()))


def test_evaluation_acts_with_the_mode(agent, images, seed):
    action, (latent, carried) = act(agent, images, agent.initial(16), seed, False)
    again, _ = act(agent, images, agent.initial(16), seed, False)
    np.testing.assert_array_equal(action, again)
    np.testing.assert_array_equal(action, carried)
    # The mode at the latent state itself: no exploration noise on top.
    dist = agent.actor(agent.world_model.rssm.get_feat(latent))
    mode = dist.mode(tf.random.split(seed, 3)[1])
    np.testing.assert_allclose(action, mode, atol=1e-6)
    assert np.abs(action).max() <= 1


def test_training_samples_and_explores(agent, images, seed):
    action, (latent, carried) = act(agent, images, agent.initial(16), seed, True)
    np.testing.assert_array_equal(action, carried)
    dist = agent.actor(agent.world_model.rssm.get_feat(latent))
    noise = action - dist.sample(tf.random.split(seed, 3)[1])
    inside = np.abs(action) < 1
    assert inside.any() and (~inside).any()
    assert np.abs(action).max() == 1
    # What is not clipped is N(0, 0.3).
    assert 0.05 < noise.numpy()[inside].std() < 0.5
    other, _ = act(agent, images, agent.initial(16), seed + 1, True)
    assert (action.numpy() != other.numpy()).any(-1).all()


def test_exploration_noise_has_its_standard_deviation(make_agent, seed):
    agent = make_agent(train__expl_amount=0.05, actor__init_std=0.01)
    images = tf.zeros([2000, 64, 64, 3], tf.uint8)
    agent.world_model.encoder = lambda obs: tf.zeros([2000, 128])  # the noise needs no images
    action, (latent, _) = act(agent, images, agent.initial(2000), seed, True)
    dist = agent.actor(agent.world_model.rssm.get_feat(latent))
    noise = (action - dist.sample(tf.random.split(seed, 3)[1])).numpy()
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 0.01


def test_the_state_carries_latent_and_action(agent, images, seed):
    _, (latent, action) = act(agent, images, agent.initial(16), seed, True)
    _, (after, _) = act(agent, images, (latent, action), seed, True)
    rssm, embed = agent.world_model.rssm, agent.world_model.encoder({"image": scale_image(images)})
    expected, _ = rssm.obs_step(latent, action, embed, seed)
    for key in ("deter", "mean", "std"):
        np.testing.assert_allclose(after[key], expected[key], atol=1e-5, err_msg=key)


def test_traced_policy_equals_eager(agent, images, seed):
    """Also after calls with another mode and another number of environments."""
    for training, count in ((True, 16), (False, 16), (True, 1), (False, 3)):
        arguments = (images[:count], agent.initial(count), seed, training)
        traced, eager = agent.policy(*arguments), act(agent, *arguments)
        np.testing.assert_allclose(traced[0], eager[0], atol=1e-4)
        np.testing.assert_allclose(traced[1][0]["deter"], eager[1][0]["deter"], atol=1e-5)


def test_policy_is_called_as_documented(agent):
    names = list(inspect.signature(agent.policy.python_function).parameters)
    assert names[-4:] == ["image", "state", "seed", "training"]


# Video


CONTEXT = 2


def predict(agent, batch, seed):
    return agent.predict.python_function(batch, CONTEXT, seed).numpy()


def test_predict(agent, batch, seed):
    video = agent.predict(batch, CONTEXT, seed)
    assert (video.shape, video.dtype) == ((BATCH, LENGTH, 64, 192, 3), tf.uint8)
    truth, model, error = np.split(video.numpy().astype(int), 3, 3)
    np.testing.assert_allclose(truth, batch["image"], atol=1)
    # Half the difference around grey.
    np.testing.assert_allclose(error, (model - truth) / 2 + 127.5, atol=2)
    assert model.std() > 0


def test_predictions_see_the_context_alone(agent, batch, seed):
    model = np.s_[:, :, :, 64:128]
    video = predict(agent, batch, seed)[model]
    image = batch["image"].numpy()
    later = np.concatenate([image[:, :CONTEXT], 255 - image[:, CONTEXT:]], 1)
    blind = predict(agent, {**batch, "image": tf.constant(later)}, seed)[model]
    np.testing.assert_array_equal(video, blind)
    action = batch["action"].numpy()
    action[:, CONTEXT:] = -9 * action[:, CONTEXT:]
    steered = predict(agent, {**batch, "action": tf.constant(action)}, seed)[model]
    np.testing.assert_array_equal(video[:, :CONTEXT], steered[:, :CONTEXT])
    assert (video[:, CONTEXT:] != steered[:, CONTEXT:]).any((2, 3, 4)).all()
