"""The agents of all presets and each part's own settings, by single updates, run eagerly."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.agent.agent import Agent
from dreamer_bird.cli import explained
from dreamer_bird.commands.timing import random_batch, random_observations, spec_of
from dreamer_bird.config import load
from dreamer_bird.utils import seeds

PRESETS = [name for name in explained()[2] if name != "debug"]
FEW = {"replay.batch": 2, "replay.length": 5, "objective.horizon": 3, "precision": "float32"}
FEW |= {"model.decode_steps": None, "objective.imagine_starts": None}
FEW |= {"actor.learning_starts": 0, "model.free_nats": 0.0}  # so that every weight has a gradient


@pytest.mark.parametrize("preset", PRESETS)
def test_the_agent_of_a_preset_learns_and_acts(preset):
    config = load(FEW, [preset])
    spec, seed = spec_of(config), tf.constant(seeds.stateless(0, "test", 0))
    agent = Agent(config, spec)
    weights = [*agent.world_model.trainable_variables, *agent.actor_critic.trainable_variables]
    before = [weight.numpy() for weight in weights]
    metrics = agent._traced["update"].python_function(random_batch(config), seed)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["skipped_updates"] == 0
    for weight, old in zip(weights, before, strict=True):
        assert (weight.numpy() != old).any(), weight.name
    obs = random_observations(spec, (1,), np.random.default_rng(0))
    action, _ = agent.policy(obs, agent.initial(1), seed, training=True)
    assert action.shape == (1, 1) and np.isfinite(action).all()


def test_settings_reach_their_own_network(make_agent):
    flags = {"actor__min_std": 0.3, "actor__mean_scale": 2.0, "model__conv_act": "elu"}
    agent = make_agent(**flags, actor__units=7, value__units=9)
    actor, value = agent.actor_critic.actor, agent.actor_critic.value
    assert (actor.min_std, actor.mean_scale) == (0.3, 2.0)
    assert {layer.units for layer in actor.layers} == {7}
    assert {layer.units for layer in value.layers} == {9}
    model = agent.world_model
    assert {layer.act for layer in model.encoders["image"].layers} == {tf.nn.elu}
    assert model.decoders["image"].layers[0].act is tf.nn.elu


def test_a_rate_and_a_clip_reach_their_own_part(make_agent, batch, seed):
    """Adam's first step is the rate; its first moment is a tenth of the clipped gradient."""
    parts = {"model": (1e-3, 3e-3), "actor": (2e-3, 5e-3), "value": (4e-3, 7e-3)}
    flags = {f"{part}__lr": rate for part, (rate, _) in parts.items()}
    flags |= {f"{part}__clip": clip for part, (_, clip) in parts.items()}
    agent = make_agent(**flags, model__free_nats=0.0)
    before = [weight.numpy() for part in parts for weight in agent.optimizers[part].weights]
    agent._traced["update"].python_function(batch, seed)
    before = iter(before)
    for part, (rate, clip) in parts.items():
        optimizer = agent.optimizers[part]
        moved = [np.abs(weight.numpy() - next(before)).max() for weight in optimizer.weights]
        assert max(moved) == pytest.approx(rate, rel=0.01)
        norm = np.sqrt(sum(np.square(moment.numpy()).sum() for moment in optimizer.first))
        assert norm == pytest.approx(0.1 * clip, rel=0.01)
