"""What actor and value learn from rollouts, against the equations in NumPy, one rollout a time."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sizes import BATCH, LENGTH

HORIZON, STARTS, ALPHA, CLIP, LAMBDA, GAMMA = 4, 3, 0.3, 0.7, 0.8, 0.9
FLAGS = {"model__discount_head": True, "objective__horizon": HORIZON, "objective__alpha": ALPHA}
FLAGS |= {"objective__imagine_starts": STARTS, "objective__confidence_clip": CLIP}
FLAGS |= {"objective__lambda": LAMBDA, "objective__discount": GAMMA}
DISCOUNT = tf.constant([[1.0, 0.0, 1.0, 1.0], [0.5, 1.0, 1.0, 0.0]])  # of the real states


@pytest.fixture
def posterior(seed):
    def make(agent):
        states = agent.world_model.rssm.initial(BATCH * LENGTH)
        return {
            key: tf.random.stateless_normal([BATCH, LENGTH, x.shape[-1]], seed + number)
            for number, (key, x) in enumerate(states.items())
        }

    return make


def returns(reward, value, discount):
    """V of Eq. 5, of one rollout: from v_H backwards."""
    found = [value[-1]]
    for h in reversed(range(len(value) - 1)):
        ahead = (1 - LAMBDA) * value[h + 1] + LAMBDA * found[0]
        found.insert(0, reward[h] + discount[h] * ahead)
    return found[:-1]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("variant", ["dreamer", "bird", "soft_bird"])
def test_losses_and_metrics(make_agent, posterior, seed, variant, weighted):
    flags = {**FLAGS, "variant": variant, "objective__weight_value_loss": weighted}
    agent = make_agent(**flags, objective__entropy="tanh" if variant == "soft_bird" else "gaussian")
    model, behaviour = agent.world_model, agent.actor_critic
    for head in (model.reward, model.discount, behaviour.value):  # far from one another
        head.hout.kernel.assign(3 * head.hout.kernel)
    rollouts = behaviour.imagine(model, posterior(agent), DISCOUNT, seed)
    actor_loss, value_loss, metrics = behaviour.losses(model, rollouts)

    feat = model.rssm.get_feat(rollouts.states)
    reward, value = model.reward(feat).mode().numpy(), behaviour.value(feat).mode().numpy()
    discount = 1 / (1 + np.exp(-model.discount(feat).distribution.logits.numpy()))
    states = {key: x.numpy() for key, x in rollouts.states.items()}
    likelihood = stats.norm.logpdf(states["stoch"], states["mean"], states["std"]).sum((0, -1))
    entropy = {key: x.numpy() for key, x in rollouts.entropies.items()}
    used = entropy["tanh" if variant == "soft_bird" else "gaussian"]
    count = BATCH * STARTS
    assert reward.shape == used.shape == (HORIZON, count)

    start = rollouts.start_discount.numpy()
    share = start / start.mean()
    assert 0 in start and 0.5 in start
    mean = (share * likelihood).mean()
    deviation = np.sqrt((share * (likelihood - mean) ** 2).mean())
    weight = np.ones(count)
    if variant == "bird":
        weight = np.clip(1 + (likelihood - mean) / deviation, 1 - CLIP, 1 + CLIP)
        weight[start == 0] = 1
    actor, critic = [], []
    for n in range(count):
        paid = reward[:, n].astype(float)
        if variant == "soft_bird":  # in s_1 ... s_{H-1}, as far as they are not terminal
            paid[:-1] += ALPHA * discount[:-1, n] / GAMMA * used[1:, n]
        target = returns(paid, value[:, n], discount[:, n])
        decay = share[n]
        for h in range(HORIZON - 1):
            actor.append(weight[n] * decay * target[h])
            error = 0.5 * (value[h, n] - target[h]) ** 2 + 0.5 * np.log(2 * np.pi)
            critic.append((weight[n] if weighted else 1) * decay * error)
            decay *= discount[h, n]
    bonus = ALPHA * (share * used[0]).mean() if variant == "bird" else 0
    assert float(actor_loss) == pytest.approx(-np.mean(actor) - bonus, rel=1e-4)
    assert float(value_loss) == pytest.approx(np.mean(critic), rel=1e-4)
    spread = np.sqrt((share * (weight - (share * weight).mean()) ** 2).mean())
    expected = {
        "action_ent": (share * entropy["tanh"][0]).mean(),
        "policy_entropy": (share * used[0]).mean(),
        "imagined_reward": (share * reward).mean(),
        "imagined_value": (share * value).mean(),
        "confidence_mean": (share * weight).mean(),
        "confidence_std": spread,
        "confidence_min": weight.min(),
        "confidence_max": weight.max(),
    }
    assert metrics.keys() == expected.keys()
    for key, number in expected.items():
        assert float(metrics[key]) == pytest.approx(number, rel=1e-4, abs=1e-4), key


def test_rollouts_begin_in_some_real_states_with_their_discounts(make_agent, posterior, seed):
    agent = make_agent(**FLAGS)
    discount = tf.reshape(tf.range(1.0, 1 + BATCH * LENGTH), [BATCH, LENGTH])  # tells which it is
    post = posterior(agent)
    rollouts = agent.actor_critic.imagine(agent.world_model, post, discount, seed)
    entropy = agent.actor_critic.actor(agent.world_model.rssm.get_feat(post)).gaussian_entropy()
    which = rollouts.start_discount.numpy().astype(int) - 1
    assert len(set(which)) == BATCH * STARTS
    assert np.bincount(which // LENGTH).tolist() == [STARTS, STARTS]  # of each sequence
    found = rollouts.entropies["gaussian"][0]
    np.testing.assert_allclose(found, entropy.numpy().ravel()[which], rtol=1e-5)
