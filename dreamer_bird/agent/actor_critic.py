"""Actor and value: how an agent acts, and what it learns from imagined rollouts."""

from typing import NamedTuple

import tensorflow as tf

from dreamer_bird.agent.networks import ActionDecoder, DenseDecoder
from dreamer_bird.agent.objectives import (
    OBJECTIVES,
    Imagined,
    actor_value_losses,
    start_weights,
)
from dreamer_bird.agent.replicas import whole_batch
from dreamer_bird.agent.rssm import State
from dreamer_bird.agent.world_model import Metrics, WorldModel, merge_time, some_steps
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec


class Rollouts(NamedTuple):
    """N imagined rollouts of H steps."""

    start_discount: tf.Tensor  # of the real states s_0, 0 where they are terminal, [N]
    states: State  # s_1..s_H, [H, N, ...]
    entropies: dict[str, tf.Tensor]  # of the policy at s_0..s_{H-1}, `gaussian` and `tanh`, [H, N]


class ActorCritic(tf.Module):
    """Actor (the policy) and critic (the value of its future rewards)."""

    def __init__(self, config: Config, spec: Spec, dtype: tf.DType):
        """Take the settings, the action space, and the compute dtype."""
        super().__init__("actor_critic")
        self._config = config
        actor, value = config.actor, config.value
        sizes = spec.actions, actor.layers, actor.units
        dist = "onehot" if spec.discrete else "tanh_normal"
        scales = {key: actor[key] for key in ("min_std", "init_std", "mean_scale")}
        self.actor = ActionDecoder(*sizes, dist, **scales, dtype=dtype)
        self.value = DenseDecoder((), value.layers, value.units, dtype=dtype, name="value")
        self.networks = [self.actor, self.value]  # whose names are those of their settings, too

    def act(self, feat: tf.Tensor, seed: tf.Tensor, training: bool) -> tf.Tensor:
        """Return actions `[B, A]` at features `[B, F]`: samples if `training`, else the mode."""
        dist = self.actor(feat)
        return dist.sample(seed) if training else dist.mode(seed)

    def imagine(
        self, model: WorldModel, post: State, discount: tf.Tensor, seed: tf.Tensor
    ) -> Rollouts:
        """Roll the policy out from posterior states `[B, T, ...]` with their discounts `[B, T]`.

        From all of them, or from `imagine_starts` random ones of each sequence.
        """
        settings = self._config.objective
        start = some_steps({**post, "discount": discount}, settings.imagine_starts, seed)
        start = {key: merge_time(value) for key, value in start.items()}
        start_discount = start.pop("discount")
        rollout = model.imagine(self.actor, start, settings.horizon, seed)
        return Rollouts(start_discount, *rollout)

    def losses(self, model: WorldModel, rollouts: Rollouts) -> tuple[tf.Tensor, tf.Tensor, Metrics]:
        """Return the losses of actor and value (Eq. 5-12), and metrics."""
        settings = self._config.objective
        feat = model.rssm.get_feat(rollouts.states)
        imagined = Imagined(
            start_weight=start_weights(rollouts.start_discount),
            reward=model.reward(feat).mode(),
            value=self.value(feat).mode(),
            discount=model.discounts(feat),
            entropy=rollouts.entropies[settings.entropy],
            log_prob=model.log_prob(rollouts.states),
            gamma=settings.discount,
        )
        terms = OBJECTIVES[self._config.variant](imagined, settings.alpha, settings.confidence_clip)
        actor_loss, value_loss = actor_value_losses(
            imagined, terms, settings["lambda"], settings.weight_value_loss
        )
        return actor_loss, value_loss, _metrics(imagined, terms.weight, rollouts.entropies["tanh"])


def _metrics(imagined: Imagined, weight: tf.Tensor, sampled_entropy: tf.Tensor) -> Metrics:
    start_weight = imagined.start_weight
    weights = whole_batch(weight * tf.ones_like(start_weight))
    mean, variance = tf.nn.weighted_moments(weights, 0, whole_batch(start_weight))
    return {
        "action_ent": tf.reduce_mean(start_weight * sampled_entropy[0]),
        "policy_entropy": tf.reduce_mean(start_weight * imagined.entropy[0]),
        "imagined_reward": tf.reduce_mean(start_weight * imagined.reward),
        "imagined_value": tf.reduce_mean(start_weight * imagined.value),
        "confidence_mean": mean,
        "confidence_std": tf.sqrt(variance),
        "confidence_min": tf.reduce_min(weights),
        "confidence_max": tf.reduce_max(weights),
    }
