import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import special
from sizes import ACTIONS, BATCH, LENGTH

from dreamer_bird.agent.preprocessing import scale_image
from dreamer_bird.errors import CheckpointError
from dreamer_bird.utils import seeds

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
    "kl",
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
    return agent._traced["update"].python_function(batch, seed)


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


def test_an_update_folds_its_images_into_what_standardises_them(make_agent, batch, seed):
    agent = make_agent(model__standardize=True)
    eager_step(agent, batch, seed)
    images = batch["image"].numpy() / 255 - 0.5
    standardizer = agent.world_model.standardizer
    np.testing.assert_allclose(standardizer.mean, images.mean((0, 1)), atol=1e-6)
    assert standardizer.count.numpy() == 1


@pytest.mark.parametrize("standardize", [False, True])
def test_named_weights_are_all_there_are(make_agent, standardize):
    agent = make_agent(model__standardize=standardize)
    named = {variable.ref() for variable in agent.named_variables().values()}
    assert named == {variable.ref() for variable in agent.variables}
    assert len(named) == len(agent.named_variables())


def test_weights_of_other_networks_are_refused_by_name(agent, make_agent):
    arrays = {name: variable.numpy() for name, variable in agent.named_variables().items()}
    agent.assign(arrays)
    for name, other, words in (
        (
            "rssm/img2/kernel",
            np.zeros((1, 1)),
            r"its rssm/img2/kernel has shape \(1, 1\) instead of",
        ),
        ("rssm/img2/kernel", None, "its rssm/img2/kernel has shape none instead of"),
        ("critic/h9/kernel", np.zeros(3), r"its critic/h9/kernel has shape \(3,\) instead of none"),
    ):
        harmed = arrays | {name: other}
        if other is None:
            del harmed[name]
        with pytest.raises(CheckpointError, match=words):
            agent.assign(harmed)
    for name, variable in agent.named_variables().items():
        np.testing.assert_array_equal(variable, arrays[name])


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
def test_an_optimizer_changes_its_own_weights_alone(make_agent, batch, seed, monkeypatch, only):
    agent = make_agent()
    for key in NETWORKS.keys() - {only}:
        skip = (tf.zeros([]), tf.zeros([]), tf.constant(False))
        monkeypatch.setattr(agent.optimizers[key], "apply", lambda *_, skip=skip: skip)
    before = snapshot(agent)
    eager_step(agent, batch, seed)
    changed = differing(before, snapshot(agent))
    own = {name for name in WEIGHTS if name.split("/")[0] in NETWORKS[only]}
    assert {name for name in changed if name in WEIGHTS} == own
    assert parts(changed) == NETWORKS[only] | {f"{only}_optimizer"}


def test_the_actor_begins_fresh_when_its_learning_starts(make_agent, batch, seed):
    """Until then neither its weights nor Adam's moments of it change; then its count is one."""
    agent = make_agent(actor__learning_starts=2)
    before = snapshot(agent)
    for update in range(2):
        metrics = agent.train_step(batch, seed + update)
        assert float(metrics["actor_grad_norm"]) == 0 and float(metrics["actor_loss"]) != 0
    changed = differing(before, snapshot(agent))
    assert parts(changed) == NETWORKS["model"] | NETWORKS["value"] | {
        "model_optimizer",
        "value_optimizer",
    }
    metrics = agent.train_step(batch, seed + 2)
    assert float(metrics["actor_grad_norm"]) > 0
    assert [int(agent.optimizers[part].count) for part in NETWORKS] == [3, 1, 3]
    assert {"actor", "actor_optimizer"} < parts(differing(before, snapshot(agent)))


def test_the_world_model_learns_nothing_from_actor_and_value(make_agent, batch, seed):
    plain, other = make_agent(), make_agent()
    for network in (other.actor_critic.actor, other.actor_critic.value):
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
    skip = (tf.zeros([]), tf.zeros([]), tf.constant(False))
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
        metrics = agent.train_step(batch, seed)
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


def test_discount_head(make_agent, batch, seed):
    agent = make_agent(model__discount_head=True, model__discount_scale=4.0)
    expected = dense_shapes("discount", [24, 16, 16, 16, 1])
    named = agent.named_variables()
    assert {n: tuple(v.shape) for n, v in named.items() if n.startswith("discount")} == expected
    scaled = {**batch, "image": scale_image(batch["image"])}
    scaled["discount"] = tf.constant(np.eye(BATCH, LENGTH), tf.float32)
    loss, post, metrics = agent.world_model.loss(scaled, seed)
    feat = agent.world_model.rssm.get_feat(post)
    probs = agent.world_model.discounts(feat).numpy().astype(np.float64)
    logits = special.logit(probs)
    assert (probs > 0).all() and (probs < 1).all()
    # Learns gamma where the episode goes on and 0 where it ends.
    target = 0.99 * np.eye(BATCH, LENGTH)
    log_prob = target * special.log_expit(logits) + (1 - target) * special.log_expit(-logits)
    assert float(metrics["discount_loss"]) == pytest.approx(-4 * log_prob.mean(), rel=1e-4)
    total = metrics["image_loss"] + metrics["reward_loss"] + metrics["discount_loss"]
    total += metrics["div"]
    assert float(loss) == pytest.approx(float(total), rel=1e-6)
    before = snapshot(agent)
    step_metrics = eager_step(agent, batch, seed)
    assert np.isfinite(step_metrics["discount_loss"])
    assert set(expected) | set(WEIGHTS) <= differing(before, snapshot(agent))
