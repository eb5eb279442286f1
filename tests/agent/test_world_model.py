"""What the world model learns, imagines and predicts, inside a whole agent."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sizes import BATCH, LENGTH

from dreamer_bird.agent.distributions import TanhNormal, split_seed
from dreamer_bird.agent.preprocessing import scale_image
from dreamer_bird.agent.rssm import to_carry
from dreamer_bird.agent.world_model import merge_time, some_steps


def make_start(agent, count=5):
    """Return `count` states, as posteriors would be."""
    sizes = {key: value.shape[-1] for key, value in agent.world_model.rssm.initial(1).items()}
    rng = np.random.default_rng(0)
    state = {key: rng.normal(size=(count, size)) for key, size in sizes.items()}
    state["std"] = np.exp(state["std"])
    return {key: tf.constant(value, tf.float32) for key, value in state.items()}


def change_settings(monkeypatch, model, **changes):
    monkeypatch.setattr(model, "_settings", {**model._settings, **changes})


def test_merge_time():
    x = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(merge_time(tf.constant(x)), x.reshape(6, 4))


@pytest.mark.parametrize("free_nats, kl_scale", [(0.0, 1.0), (0.0, 2.5), (3.0, 1.0), (3.0, 2.5)])
def test_model_loss(agent, batch, seed, monkeypatch, free_nats, kl_scale):
    batch = {**batch, "image": scale_image(batch["image"])}
    model = agent.world_model
    change_settings(monkeypatch, model, free_nats=free_nats, kl_scale=kl_scale)
    loss, post, metrics = model.loss(batch, seed)
    # The posterior's own samples, and all distributions written out.
    feat = np.concatenate([post["stoch"], post["deter"]], -1)
    image_error = (model.decoders["image"](feat).mean() - batch["image"]).numpy().astype(np.float64)
    reward_error = (model.reward(feat).mean() - batch["reward"]).numpy()
    constant = 0.5 * math.log(2 * math.pi)
    image_loss = (0.5 * image_error**2 + constant).sum((2, 3, 4)).mean()
    reward_loss = (0.5 * reward_error**2 + constant).mean()
    _, prior = model.rssm.observe(model.embed(batch), batch["action"], seed=seed)
    (m1, s1), (m2, s2) = ((state["mean"].numpy(), state["std"].numpy()) for state in (post, prior))
    div = (np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5).sum(-1).mean()
    assert 0 < div < 3
    assert float(metrics["image_loss"]) == pytest.approx(image_loss, rel=1e-5)
    assert float(metrics["reward_loss"]) == pytest.approx(reward_loss, rel=1e-5)
    assert float(metrics["kl"]) == pytest.approx(div, rel=1e-4)
    assert float(metrics["div"]) == pytest.approx(max(div, free_nats), rel=1e-4)
    assert float(metrics["post_ent"]) == pytest.approx(stats.norm.entropy(0, s1).sum(-1).mean())
    assert float(metrics["prior_ent"]) == pytest.approx(stats.norm.entropy(0, s2).sum(-1).mean())
    expected = image_loss + reward_loss + kl_scale * max(div, free_nats)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_the_loss_is_that_of_the_steps_decoded(agent, batch, seed, monkeypatch):
    batch = {**batch, "image": scale_image(batch["image"])}
    model = agent.world_model
    all_steps = model.loss(batch, seed)[2]
    for steps in (1, LENGTH):
        change_settings(monkeypatch, model, decode_steps=steps)
        _, post, metrics = model.loss(batch, seed)
        seen = {"feat": model.rssm.get_feat(post), "image": batch["image"]}
        seen = some_steps(seen, steps, seed)
        image_loss = -tf.reduce_mean(model.decoders["image"](seen["feat"]).log_prob(seen["image"]))
        assert float(metrics["image_loss"]) == pytest.approx(float(image_loss), rel=1e-6)
        same = float(all_steps["image_loss"]) == pytest.approx(float(image_loss), rel=1e-6)
        assert same == (steps == LENGTH)
        # What is not decoded is learned from all steps.
        assert float(metrics["reward_loss"]) == float(all_steps["reward_loss"])


def test_some_steps_are_drawn_from_each_sequence_without_repeating(seed):
    step = np.tile(np.arange(10), (300, 1))
    sequences = {"step": tf.constant(step), "double": tf.constant(2.0 * step)[..., None]}
    assert some_steps(sequences, None, seed) is sequences
    drawn = some_steps(sequences, 4, seed)
    steps = drawn["step"].numpy()
    assert steps.shape == (300, 4)
    np.testing.assert_array_equal(drawn["double"][..., 0], 2 * steps)
    assert all(len(set(row)) == 4 for row in steps)
    counts = np.bincount(steps.ravel(), minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert np.any(steps != some_steps(sequences, 4, seed + 1)["step"])


def test_free_nats_stop_the_gradient_of_the_divergence(agent, batch, seed, monkeypatch):
    batch = {**batch, "image": scale_image(batch["image"])}
    prior_alone = agent.world_model.rssm.img3.kernel
    for free_nats, learns in ((3.0, False), (0.0, True)):
        with tf.GradientTape() as tape:
            change_settings(monkeypatch, agent.world_model, free_nats=free_nats)
            loss, _, _ = agent.world_model.loss(batch, seed)
        assert bool(tape.gradient(loss, prior_alone).numpy().any()) == learns


def test_free_nats_are_of_the_mean_of_the_batch(agent, batch, seed, monkeypatch):
    batch = {**batch, "image": scale_image(batch["image"])}
    change_settings(monkeypatch, agent.world_model, free_nats=0.0)
    kl = float(agent.world_model.loss(batch, seed)[2]["div"])
    change_settings(
        monkeypatch, agent.world_model, free_nats=0.999 * kl
    )  # above what some states have, below their mean
    assert float(agent.world_model.loss(batch, seed)[2]["div"]) == pytest.approx(kl, rel=1e-5)


def test_the_divergence_draws_the_posterior_to_the_prior_and_the_prior_to_it(
    agent, batch, seed, monkeypatch
):
    one = {key: value[:, :1] for key, value in batch.items()}
    one["image"] = scale_image(one["image"])
    model = agent.world_model
    change_settings(monkeypatch, model, free_nats=0.0)
    with tf.GradientTape() as tape:
        _, post, metrics = model.loss(one, seed)
    biases = [layer.bias for layer in (model.rssm.obs2, model.rssm.img3)]
    of_post, of_prior = tape.gradient(metrics["kl"], biases)
    _, prior = model.rssm.observe(model.embed(one), one["action"], seed=seed)
    apart = ((post["mean"] - prior["mean"]) / prior["std"] ** 2).numpy().mean((0, 1))
    assert np.abs(apart).max() > 1e-3
    np.testing.assert_allclose(of_post[: len(apart)], apart, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(of_prior[: len(apart)], -apart, rtol=1e-3, atol=1e-6)


def test_where_an_episode_begins_within_a_sequence_the_model_begins_anew(agent, batch, seed):
    batch = {**batch, "image": scale_image(batch["image"])}
    first = tf.constant([[False, False, True, False], [False] * 4])
    model = agent.world_model
    _, post, _ = model.loss({**batch, "first": first}, seed)
    seen = model.embed(batch), batch["action"]
    expected, _ = model.rssm.observe(*seen, seed=seed, first=first)
    without, _ = model.rssm.observe(*seen, seed=seed)
    for key, value in expected.items():
        np.testing.assert_allclose(post[key], value, rtol=1e-5, atol=1e-6, err_msg=key)
    apart = np.abs(post["deter"] - without["deter"]).max(-1) > 1e-4
    assert apart.tolist() == [[False, False, True, True], [False] * 4]


def test_discounts_without_a_head_are_gamma(agent):
    discounts = agent.world_model.discounts(tf.zeros([3, 5, 24]))
    np.testing.assert_array_equal(discounts, np.full([3, 5], 0.99, np.float32))


def test_actor_learns_through_the_discount_head(make_agent, seed):
    """The predicted discounts of imagined states depend on the actions."""
    agent = make_agent(model__discount_head=True)
    with tf.GradientTape() as tape:
        states, _ = agent.world_model.imagine(agent.actor_critic.actor, make_start(agent), 3, seed)
        feat = agent.world_model.rssm.get_feat(states)
        total = tf.reduce_sum(agent.world_model.discounts(feat))
    gradients = tape.gradient(total, agent.actor_critic.actor.trainable_variables)
    assert all(gradient.numpy().any() for gradient in gradients)


def test_imagine_step_by_step(agent, seed):
    """Against single steps of policy and prior, with the noise that it gives them."""
    model, start, horizon = agent.world_model, make_start(agent), 4
    states, entropies = model.imagine(agent.actor_critic.actor, start, horizon, seed)
    action_seed, state_seed = tf.unstack(split_seed(seed, 2))
    action_noise = TanhNormal.noise(
        [horizon, 5, agent.actor_critic.actor.size], action_seed, axis=1
    )
    state_noise = model.rssm.noise([horizon, 5], state_seed, axis=1)
    before = start
    for h in range(horizon):
        dist = agent.actor_critic.actor(model.rssm.get_feat(before))
        # Step 0 acts from the start states, so that theirs is the first entropy.
        np.testing.assert_allclose(
            entropies["gaussian"][h], np.log(dist.std * np.sqrt(2 * np.pi * np.e)).sum(-1), 1e-5
        )
        action, entropy = dist.sample_by(action_noise[h]), dist.entropy(action_noise[h])
        np.testing.assert_allclose(entropies["tanh"][h], entropy, rtol=1e-4)
        before = model.rssm.from_carry(
            model.rssm.prior_step(to_carry(before), action, state_noise[h])
        )
        for key, value in before.items():
            np.testing.assert_allclose(states[key][h], value, atol=1e-5, err_msg=key)
        before = {key: value[h] for key, value in states.items()}
    assert states["stoch"].shape == (horizon, 5, 8)
    assert entropies["tanh"].shape == (horizon, 5)


def test_imagined_samples_differ_between_steps_and_rollouts(agent, seed):
    start = {key: tf.zeros([5, *value.shape[1:]]) for key, value in make_start(agent).items()}
    states, _ = agent.world_model.imagine(agent.actor_critic.actor, start, 4, seed)
    noise = ((states["stoch"] - states["mean"]) / states["std"]).numpy()
    assert len(np.unique(noise)) == noise.size


def test_log_prob_is_the_density_under_the_prior(agent, seed):
    states, _ = agent.world_model.imagine(agent.actor_critic.actor, make_start(agent), 4, seed)
    mean, std, stoch = (states[key].numpy() for key in ("mean", "std", "stoch"))
    expected = stats.norm.logpdf(stoch, mean, std).sum(-1)
    np.testing.assert_allclose(agent.world_model.log_prob(states), expected, rtol=1e-4)


def test_the_actor_learns_through_the_dynamics_and_not_through_its_inputs(agent, seed):
    start = make_start(agent)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(start)
        states, entropies = agent.world_model.imagine(agent.actor_critic.actor, start, 3, seed)
        last, entropy = tf.reduce_sum(states["deter"][-1]), tf.reduce_sum(entropies["tanh"][0])
    weights = agent.actor_critic.actor.trainable_variables
    assert all(gradient.numpy().any() for gradient in tape.gradient(last, weights))
    assert all(gradient.numpy().any() for gradient in tape.gradient(entropy, weights))
    assert tape.gradient(entropy, start["deter"]) is None  # its inputs are given
    assert tape.gradient(last, start["deter"]).numpy().any()  # the dynamics are not


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
