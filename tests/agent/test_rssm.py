import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from reference import dense, elu, gru, normal, randomise, shapes
from scipy import stats

from dreamer_bird.agent.rssm import RSSM, time_major

B, T, A, E, S, D = 3, 4, 2, 5, 6, 8
SIZES = {"mean": S, "std": S, "stoch": S, "deter": D}
SEED = tf.constant([1, 2])


@pytest.fixture(scope="module")
def rssm():
    rssm = RSSM(stoch=S, deter=D, hidden=7)
    rssm.obs_step(rssm.initial(1), tf.zeros([1, A]), tf.zeros([1, E]), SEED)
    randomise(rssm)
    return rssm


@pytest.fixture(scope="module")
def sequence():
    """Embeddings `[B, T, E]` and actions `[B, T, A]`."""
    noise = tf.constant(normal(B, T, E + A), tf.float32)
    return noise[..., :E], noise[..., E:]


@pytest.fixture(scope="module")
def start():
    noise = normal(B, 3 * S + D).astype(np.float32)
    mean, std, stoch, deter = np.split(noise, [S, 2 * S, 3 * S], -1)
    state = {"mean": mean, "std": np.exp(std), "stoch": stoch, "deter": deter}
    return {key: tf.constant(value) for key, value in state.items()}


def at(state, t):
    return {key: value[:, t] for key, value in state.items()}


def deter_after(rssm, state, action):
    x = np.concatenate([state["stoch"], action], -1)
    return gru(elu(dense(x, rssm.img1)), state["deter"].numpy(), rssm.cell)


def statistics(y):
    mean, std = np.split(y, 2, -1)
    return mean, np.logaddexp(0, std) + 0.1


def prior_of(rssm, deter):
    return statistics(dense(elu(dense(deter, rssm.img2)), rssm.img3))


def posterior_of(rssm, deter, embed):
    x = np.concatenate([deter, embed], -1)
    return statistics(dense(elu(dense(x, rssm.obs1)), rssm.obs2))


def assert_state(state, deter, mean_std):
    for key, expected in zip(("deter", "mean", "std"), (deter, *mean_std), strict=True):
        np.testing.assert_allclose(state[key], expected, atol=1e-5, err_msg=key)


def noise_of(state):
    return (state["stoch"] - state["mean"]).numpy() / state["std"].numpy()


def assert_shapes(state, *batch):
    assert {key: value.shape for key, value in state.items()} == {
        key: (*batch, size) for key, size in SIZES.items()
    }
    assert {value.dtype for value in state.values()} == {tf.float32}


def test_initial_state_is_zero(rssm):
    state = rssm.initial(B)
    assert_shapes(state, B)
    assert not any(value.numpy().any() for value in state.values())


def test_img_step(rssm, sequence, start):
    action = sequence[1][:, 0]
    prior = rssm.img_step(start, action, SEED)
    deter = deter_after(rssm, start, action)
    assert_shapes(prior, B)
    assert_state(prior, deter, prior_of(rssm, deter))


def test_obs_step(rssm, sequence, start):
    embed, action = sequence[0][:, 0], sequence[1][:, 0]
    post, prior = rssm.obs_step(start, action, embed, SEED)
    deter = deter_after(rssm, start, action)
    assert_shapes(post, B)
    assert_shapes(prior, B)
    assert_state(post, deter, posterior_of(rssm, deter, embed))
    assert_state(prior, deter, prior_of(rssm, deter))


@pytest.mark.parametrize("given", [False, True], ids=["from-zero", "from-a-state"])
def test_observe_against_numpy(rssm, sequence, start, given):
    embed, action = sequence
    post, prior = rssm.observe(embed, action, start if given else None, SEED)
    assert_shapes(post, B, T)
    assert_shapes(prior, B, T)
    before = start if given else rssm.initial(B)
    for t in range(T):
        deter = deter_after(rssm, before, action[:, t])
        assert_state(at(post, t), deter, posterior_of(rssm, deter, embed[:, t]))
        assert_state(at(prior, t), deter, prior_of(rssm, deter))
        before = at(post, t)


def test_observe_is_repeated_obs_step(rssm, sequence, start):
    embed, action = sequence
    observed = rssm.observe(embed, action, start, SEED)
    before = start
    for t in range(T):
        stepped = rssm.obs_step(before, action[:, t], embed[:, t], SEED)
        for one, other in zip(stepped, observed, strict=True):
            assert_state(one, at(other, t)["deter"], (at(other, t)["mean"], at(other, t)["std"]))
        before = at(observed[0], t)


def test_gradients_of_observe_are_those_of_the_plain_form(rssm, sequence, start, monkeypatch):
    """One step after another, each on the concatenated inputs, in place of embeddings first."""
    monkeypatch.setattr("dreamer_bird.agent.rssm.normal_noise", lambda shape, *_: tf.zeros(shape))
    embed, action = sequence

    def plain(embed):
        states = [start]
        for t in range(T):
            x = rssm.img1(tf.concat([states[-1]["stoch"], action[:, t]], -1))
            deter = rssm.cell(x, states[-1]["deter"])
            x = rssm.obs1(tf.concat([deter, embed[:, t]], -1))
            mean, _ = tf.split(rssm.obs2(x), 2, -1)
            states.append({"deter": deter, "stoch": mean})
        return {key: tf.stack([s[key] for s in states[1:]], 1) for key in ("deter", "stoch")}

    def gradients(observe):
        with tf.GradientTape() as tape:
            tape.watch(embed)
            post = observe(embed)
            loss = tf.reduce_sum(tf.square(post["deter"])) + tf.reduce_sum(post["stoch"])
        parts = (rssm.img1, rssm.cell, rssm.obs1, rssm.obs2)
        return tape.gradient(
            loss, [embed, *(w for part in parts for w in part.trainable_variables)]
        )

    ours = gradients(lambda embed: rssm.observe(embed, action, start, SEED)[0])
    for one, other in zip(ours, gradients(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


def test_imagine_against_numpy(rssm, sequence, start):
    action = sequence[1]
    priors = rssm.imagine(action, start, SEED)
    assert_shapes(priors, B, T)
    before = start
    for t in range(T):
        deter = deter_after(rssm, before, action[:, t])
        assert_state(at(priors, t), deter, prior_of(rssm, deter))
        before = at(priors, t)


def test_imagine_starts_from_zero(rssm, sequence):
    one = rssm.imagine(sequence[1], seed=SEED)
    other = rssm.imagine(sequence[1], rssm.initial(B), SEED)
    for key in SIZES:
        np.testing.assert_array_equal(one[key], other[key])


def test_traced_equals_eager(rssm, sequence):
    eager = rssm.observe(*sequence, seed=SEED)
    traced = tf.function(rssm.observe)(*sequence, seed=SEED)
    for one, other in zip(eager, traced, strict=True):
        for key in SIZES:
            np.testing.assert_allclose(one[key], other[key], atol=1e-5)


def test_noise_is_standard_normal_and_independent(rssm):
    """In every row, step and dimension, of posterior, prior and imagination."""
    embed, action = tf.zeros([16, 32, E]), tf.zeros([16, 32, A])
    post, prior = rssm.observe(embed, action, seed=SEED)
    noise = [noise_of(state) for state in (post, prior, rssm.imagine(action, seed=SEED))]
    for values in noise:
        assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
        assert len(np.unique(values.round(4))) > 0.9 * values.size
    assert abs(stats.pearsonr(noise[0].ravel(), noise[1].ravel()).statistic) < 0.08


def test_the_seed_alone_decides_samples(rssm, sequence, start):
    embed, action = sequence
    calls = [
        lambda seed: rssm.observe(embed, action, start, seed)[0],
        lambda seed: rssm.observe(embed, action, start, seed)[1],
        lambda seed: rssm.imagine(action, start, seed),
        lambda seed: rssm.img_step(start, action[:, 0], seed),
        lambda seed: rssm.obs_step(start, action[:, 0], embed[:, 0], seed)[0],
        lambda seed: rssm.obs_step(start, action[:, 0], embed[:, 0], seed)[1],
    ]
    for call in calls:
        one, same, other = (call(seed)["stoch"].numpy() for seed in (SEED, SEED, SEED + 1))
        np.testing.assert_array_equal(one, same)
        assert (one != other).all()
        assert (call(None)["stoch"].numpy() != call(None)["stoch"].numpy()).all()


def test_samples_pass_gradients_to_earlier_steps(rssm, sequence):
    """Reparameterised: the last state depends on the first embedding through all samples."""
    embed, action = sequence
    with tf.GradientTape() as tape:
        tape.watch(embed)
        last = tf.reduce_sum(rssm.observe(embed, action, seed=SEED)[0]["stoch"][:, -1])
    assert tape.gradient(last, embed).numpy()[:, 0].all()


def test_features_are_stochastic_then_deterministic(start, rssm):
    expected = np.concatenate([start["stoch"], start["deter"]], -1)
    np.testing.assert_array_equal(rssm.get_feat(start), expected)


def test_divergence_in_closed_form(rssm, sequence):
    post, prior = rssm.observe(*sequence, seed=SEED)
    divergence = tfp.distributions.kl_divergence(rssm.get_dist(post), rssm.get_dist(prior))
    (m1, s1), (m2, s2) = ((state["mean"].numpy(), state["std"].numpy()) for state in (post, prior))
    expected = np.log(s2 / s1) + (s1**2 + (m1 - m2) ** 2) / (2 * s2**2) - 0.5
    assert divergence.shape == (B, T)
    np.testing.assert_allclose(divergence, expected.sum(-1), rtol=1e-4)


def test_density_and_entropy_of_a_state(rssm, start):
    dist, mean, std = rssm.get_dist(start), start["mean"].numpy(), start["std"].numpy()
    log_density = stats.norm.logpdf(start["stoch"].numpy(), mean, std).sum(-1)
    np.testing.assert_allclose(dist.log_prob(start["stoch"]), log_density, rtol=1e-5)
    np.testing.assert_allclose(dist.entropy(), stats.norm.entropy(mean, std).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_states_stay_float32(sequence, dtype):
    rssm = RSSM(stoch=S, deter=D, hidden=7, dtype=dtype)
    for state in (*rssm.observe(*sequence, seed=SEED), rssm.imagine(sequence[1], seed=SEED)):
        assert_shapes(state, B, T)
        assert all(np.isfinite(value).all() for value in state.values())


def test_time_major():
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(time_major(tf.constant(x)), x.swapaxes(0, 1))
    np.testing.assert_array_equal(time_major(tf.constant(x[..., 0, 0])), x[..., 0, 0].T)


def test_paper_size():
    rssm = RSSM(stoch=40, deter=300, hidden=300)
    rssm.obs_step(rssm.initial(1), tf.zeros([1, 6]), tf.zeros([1, 1024]), SEED)
    biases = {"img1": 300, "img2": 300, "img3": 80, "obs1": 300, "obs2": 80}
    assert shapes(rssm) == {
        "img1/kernel": (46, 300),
        "gru/kernel": (300, 900),
        "gru/recurrent_kernel": (300, 900),
        "gru/bias": (2, 900),
        "img2/kernel": (300, 300),
        "img3/kernel": (300, 80),
        "obs1/kernel": (1324, 300),
        "obs2/kernel": (300, 80),
        **{f"{name}/bias": (size,) for name, size in biases.items()},
    }


def test_another_episode_begins_with_a_state_of_its_own(rssm, sequence):
    embed, action = sequence
    first = np.zeros((B, T), bool)
    first[1, 2] = True  # in the second sequence alone
    joined = rssm.observe(embed, action, seed=SEED, first=tf.constant(first))
    before = tf.constant(np.where(np.arange(T)[:, None] < 2, 5.0, embed), tf.float32)
    other = rssm.observe(before, action, seed=SEED, first=tf.constant(first))
    plain = rssm.observe(embed, action, seed=SEED)
    for ours, changed, whole in zip(joined, other, plain, strict=True):
        # What came before has no part in it, and no part is taken from other sequences.
        np.testing.assert_array_equal(ours["mean"][1, 2:], changed["mean"][1, 2:])
        assert not np.allclose(ours["mean"][1, :2], changed["mean"][1, :2])
        assert not np.allclose(ours["mean"][0, 2:], changed["mean"][0, 2:])
        np.testing.assert_array_equal(np.delete(ours["mean"], 1, 0), np.delete(whole["mean"], 1, 0))
        assert not np.allclose(ours["mean"][1, 2:], whole["mean"][1, 2:])
    # It is the zero state, reached by no action.
    zero, idle = rssm.initial(1), tf.zeros([1, A])
    deter = rssm.img_step(zero, idle, SEED)["deter"]
    np.testing.assert_allclose(joined[0]["deter"][1, 2], deter[0], atol=1e-6)


def test_no_mark_of_another_episode_is_the_same_as_none(rssm, sequence):
    embed, action = sequence
    plain = rssm.observe(embed, action, seed=SEED)
    marked = rssm.observe(embed, action, seed=SEED, first=tf.zeros([B, T], tf.bool))
    for ours, theirs in zip(plain, marked, strict=True):
        np.testing.assert_array_equal(ours["stoch"], theirs["stoch"])
