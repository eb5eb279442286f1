"""The agent: acts with `policy`, learns with `train_step`."""

import numpy as np
import tensorflow as tf

from dreamer_bird.agent.distributions import OneHot, normal_noise
from dreamer_bird.agent.layers import weights_from
from dreamer_bird.agent.networks import (
    ActionDecoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)
from dreamer_bird.agent.objectives import OBJECTIVES, Imagined, actor_value_losses
from dreamer_bird.agent.optimizer import Optimizer
from dreamer_bird.agent.preprocessing import preprocess, scale_image
from dreamer_bird.agent.replicas import batch_mean, from_chief, own_part, whole_batch
from dreamer_bird.agent.rssm import RSSM, State
from dreamer_bird.agent.standardizer import Standardizer
from dreamer_bird.agent.world_model import Batch, WorldModel, some_steps
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import CheckpointError
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays

ACTIVATIONS = {"relu": tf.nn.relu, "elu": tf.nn.elu}
DTYPES = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16}

Metrics = dict[str, tf.Tensor]  # scalars
PolicyState = tuple[State, tf.Tensor]  # latent state and the action that followed it


class Agent(tf.Module):
    """World model, actor and value, and how they learn."""

    def __init__(self, config: Config, spec: Spec, learns: bool = True):
        """Build all networks, with weights that depend on `config.seed` alone.

        Inside the scope of a strategy of `tf.distribute` its replicas share every update. One that
        only acts has no optimizers.
        """
        super().__init__("agent")
        self._strategy = tf.distribute.get_strategy()
        self._config = config
        self._spec = spec
        dtype = DTYPES[config.precision]
        model, actor, value = config.model, config.actor, config.value
        shape = spec.observation.get("image")
        self.standardizer = Standardizer(shape) if shape and model.standardize else None
        encoders, decoders = self._observation_networks(dtype)
        self.world_model = WorldModel(
            encoders,
            RSSM(model.stoch, model.deter, model.hidden, dtype=dtype),
            decoders,
            DenseDecoder((), model.reward_layers, model.units, dtype=dtype, name="reward"),
            DenseDecoder(
                (), model.discount_layers, model.units, "binary", dtype=dtype, name="discount"
            )
            if model.discount_head
            else None,
            config.objective.discount,
        )
        self.actor = ActionDecoder(
            spec.actions,
            actor.layers,
            actor.units,
            "onehot" if spec.discrete else "tanh_normal",
            init_std=actor.init_std,
            min_std=actor.min_std,
            mean_scale=actor.mean_scale,
            dtype=dtype,
        )
        self.value = DenseDecoder((), value.layers, value.units, dtype=dtype, name="value")
        with weights_from(seeds.generator(config.seed, "weights")):
            self._build()
        scaling = dtype == tf.float16
        self.optimizers = {
            name: Optimizer(part.trainable_variables, section.lr, section.clip, scaling, name)
            for name, part, section in (
                ("model", self.world_model, model),
                ("actor", self.actor, actor),
                ("value", self.value, value),
            )
            if learns
        }
        self._actor_learns = False
        # No Python control flow depends on tensors; tracing without autograph takes half the time.
        self._train_step = tf.function(self._whole_step, autograph=False, jit_compile=config.xla)

    def initial(self, batch_size: int) -> PolicyState:
        """Return the policy's state before the first step of an episode, `[B, ...]`."""
        action = tf.zeros([batch_size, self._spec.actions])
        return self.world_model.rssm.initial(batch_size), action

    @tf.function(autograph=False)
    def policy(
        self, obs: dict[str, tf.Tensor], state: PolicyState, seed: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, PolicyState]:
        """Act on observations `[B, ...]` as the environment gives them.

        Returns actions `[B, A]`, in [-1, 1] or one-hot, sampled and explored with if `training`,
        else the mode of the policy, and the state to pass with the next observations.
        """
        latent_seed, action_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
        latent, action = state
        embed = self.world_model.embed(preprocess(obs))
        latent, _ = self.world_model.rssm.obs_step(latent, action, embed, latent_seed)
        dist = self.actor(self.world_model.rssm.get_feat(latent))
        if training:
            action = self._explore(dist.sample(action_seed), noise_seed)
        else:
            action = dist.mode(action_seed)
        return action, (latent, action)

    def act(
        self, obs: Arrays, state: PolicyState | None, seed: np.ndarray, training: bool
    ) -> tuple[np.ndarray, PolicyState]:
        """Do what `policy` does, from and to arrays; episodes begin where there is no state."""
        state = self.initial(len(next(iter(obs.values())))) if state is None else state
        action, state = self.policy(obs, state, seed, training)
        return action.numpy(), state

    def begin_anew(self, state: PolicyState, where: np.ndarray) -> PolicyState:
        """Return the policy's state with the rows `where`, bool `[B]`, as an episode begins."""
        first = self.initial(len(where))
        return tf.nest.map_structure(
            lambda new, old: tf.where(where[:, None], new, old), first, state
        )

    def train_step(self, batch: Batch, seed: tf.Tensor) -> Metrics:
        """Update world model, actor and value once (Algorithm 1) and return metrics, scalars.

        Args:
            batch: `image` `[B, T, H, W, 3]` uint8 or `state` `[B, T, S]` or both, `action`
                `[B, T, A]`, `reward` and `discount` `[B, T]`; `action[:, t]` led to the
                observation at `t`, and `reward[:, t]` came with it.
            seed: of all samples, `[2]`.
        """
        if not self._actor_learns:  # a device is asked until then, and never again
            starts = self._config.actor.learning_starts
            self._actor_learns = int(self.optimizers["value"].count) >= starts
        return self._train_step(batch, seed, self._actor_learns)

    def _whole_step(self, batch: Batch, seed: tf.Tensor, actor_learns: bool = True) -> Metrics:
        metrics = self._strategy.run(self._replica_step, (batch, seed, actor_learns))
        # All replicas have the same.
        return {
            key: self._strategy.experimental_local_results(value)[0]
            for key, value in metrics.items()
        }

    def _replica_step(self, batch: Batch, seed: tf.Tensor, actor_learns: bool) -> Metrics:
        """Do what `train_step` does, as one of the replicas, each with its part of the batch."""
        batch, seed = from_chief((batch, seed))
        model_seed, imagine_seed = tf.unstack(tf.random.split(seed))
        if self.standardizer:
            self.standardizer.update(scale_image(batch["image"]))
        batch = preprocess(own_part(batch))
        with tf.GradientTape() as model_tape:
            model_loss, post, metrics = self._model_loss(batch, model_seed)
        # Outside the model's tape: the behaviour does not train the model.
        start = {**post, "discount": batch["discount"]}
        start = some_steps(start, self._config.objective.starts, imagine_seed)
        start = {key: merge_time(value) for key, value in start.items()}
        start_discount = start.pop("discount")
        with tf.GradientTape() as actor_tape:
            rollout = self._imagine(start, imagine_seed)
            # Inside, so that the value's gradient does not go back through the rollout.
            with tf.GradientTape() as value_tape:
                actor_loss, value_loss, behaviour_metrics = self._behaviour_losses(
                    start_discount, *rollout
                )

        losses = {"model": model_loss, "actor": actor_loss, "value": value_loss}
        tapes = {"model": model_tape, "actor": actor_tape, "value": value_tape}
        # All gradients are taken before any update: each part sees the same weights of the others.
        gradients = {
            part: self._gradients(tapes[part], part, losses[part])
            for part in losses
            if actor_learns or part != "actor"
        }
        losses, gradients = batch_mean((losses, gradients))
        return batch_mean(metrics | behaviour_metrics) | self._update(losses, gradients)

    @tf.function(autograph=False)
    def predict(self, batch: Batch, context: int, seed: tf.Tensor) -> tf.Tensor:
        """Return truth, open-loop prediction and error side by side, `[B, T, H, 3 W, 3]` uint8."""
        batch = preprocess(batch)
        truth = batch["image"]
        model = self.world_model.predict(batch, context, seed)
        error = (model - truth) / 2
        video = tf.concat([truth, model, error], 3)
        return tf.cast(tf.round(tf.clip_by_value(255 * (video + 0.5), 0, 255)), tf.uint8)

    @tf.function(autograph=False)
    def model_error(self, batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        """Return `WorldModel.model_error`, `[H]`, of a batch as the replay gives it."""
        return self.world_model.model_error(preprocess(batch), seed)

    def named_variables(self) -> dict[str, tf.Variable]:
        """Return everything that a checkpoint holds, by names such as `encoder/h1/kernel`."""
        model = self.world_model
        parts = [*model.encoders.values(), model.rssm, *model.decoders.values(), model.reward]
        parts += [self.actor, self.value, *([model.discount] if model.discount else [])]
        weights = {
            f"{part.name}/{variable.name.removesuffix(':0')}": variable
            for part in parts
            for variable in part.trainable_variables
        }
        names = {variable.ref(): name for name, variable in weights.items()}
        if self.standardizer:
            weights |= self.standardizer.named_variables()
        for key, optimizer in self.optimizers.items():
            slots = optimizer.named_variables(names)
            weights |= {f"{key}_optimizer/{name}": slot for name, slot in slots.items()}
        return weights

    def assign(self, arrays: Arrays, loss_scale: bool = True) -> None:
        """Take over what `named_variables` named, without the loss scales if not `loss_scale`.

        Raises CheckpointError that names the first array that is missing, foreign or of other size.
        """
        self._actor_learns = False  # as far as the weights that were there before tell
        variables = self.named_variables()
        ours = {name: tuple(variable.shape) for name, variable in variables.items()}
        theirs = {name: array.shape for name, array in arrays.items()}
        for name in {**ours, **theirs}:
            if ours.get(name) != theirs.get(name):
                raise CheckpointError(
                    f"the checkpoint is of other networks: its {name} has shape "
                    f"{theirs.get(name, 'none')} instead of {ours.get(name, 'none')}"
                )
        for name, variable in variables.items():
            if loss_scale or "loss_scale" not in name:
                variable.assign(arrays[name])

    def _observation_networks(self, dtype: tf.DType) -> tuple[dict, dict]:
        """Return encoders and decoders by the name of the observation."""
        model, shapes = self._config.model, self._spec.observation
        encoders, decoders = {}, {}
        if shape := shapes.get("image"):
            size = model.depth, ACTIVATIONS[model.conv_act], shape, dtype, self.standardizer
            encoders["image"], decoders["image"] = ConvEncoder(*size), ConvDecoder(*size)
        if shape := shapes.get("state"):
            size = model.state_layers, model.units
            encoders["state"] = DenseEncoder(*size, dtype=dtype, name="state_encoder")
            decoders["state"] = DenseDecoder(
                shape, *size, std=model.state_std, dtype=dtype, name="state_decoder"
            )
        return encoders, decoders

    def _explore(self, action: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Add Gaussian noise, or replace one-hot actions by uniform ones with that probability."""
        amount = self._config.train.expl_amount
        if not self._spec.discrete:
            noise = amount * normal_noise(tf.shape(action), seed)
            return tf.clip_by_value(action + noise, -1, 1)
        replace_seed, action_seed = tf.unstack(tf.random.split(seed))
        replaced = tf.random.stateless_uniform([tf.shape(action)[0], 1], replace_seed) < amount
        return tf.where(replaced, OneHot(tf.zeros_like(action)).sample(action_seed), action)

    def _model_loss(self, batch: Batch, seed: tf.Tensor) -> tuple[tf.Tensor, State, Metrics]:
        section = self._config.model
        return self.world_model.loss(
            batch,
            seed,
            section.free_nats,
            section.kl_scale,
            section.discount_scale,
            section.decoded,
        )

    def _imagine(self, start: State, seed: tf.Tensor) -> tuple[State, Metrics]:
        return self.world_model.imagine(self.actor, start, self._config.objective.horizon, seed)

    def _behaviour_losses(
        self, start_discount: tf.Tensor, states: State, entropies: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, Metrics]:
        section = self._config.objective
        feat = self.world_model.rssm.get_feat(states)
        imagined = Imagined(
            start=start_discount,
            reward=self.world_model.reward(feat).mode(),
            value=self.value(feat).mode(),
            discount=self.world_model.discounts(feat),
            entropy=entropies[section.entropy],
            log_prob=self.world_model.log_prob(states),
            gamma=section.discount,
        )
        objective = OBJECTIVES[self._config.variant]
        terms = objective(imagined, section.alpha, section.confidence_clip)
        actor_loss, value_loss = actor_value_losses(
            imagined, terms, section["lambda"], section.weight_value_loss
        )
        share = imagined.share
        weights = whole_batch(terms.weight * tf.ones_like(share))
        mean, variance = tf.nn.weighted_moments(weights, 0, whole_batch(share))
        metrics = {
            "action_ent": tf.reduce_mean(share * entropies["tanh"][0]),
            "policy_entropy": tf.reduce_mean(share * imagined.entropy[0]),
            "imagined_reward": tf.reduce_mean(share * imagined.reward),
            "imagined_value": tf.reduce_mean(share * imagined.value),
            "confidence_mean": mean,
            "confidence_std": tf.sqrt(variance),
            "confidence_min": tf.reduce_min(weights),
            "confidence_max": tf.reduce_max(weights),
        }
        return actor_loss, value_loss, metrics

    def _gradients(self, tape: tf.GradientTape, part: str, loss: tf.Tensor) -> list[tf.Tensor]:
        optimizer = self.optimizers[part]
        return tape.gradient(loss, optimizer.weights, optimizer.loss_scale)

    def _update(
        self, losses: dict[str, tf.Tensor], gradients: dict[str, list[tf.Tensor]]
    ) -> Metrics:
        metrics, skipped = {}, []
        for part, loss in losses.items():
            norm, updated = tf.zeros([]), tf.constant(True)
            if part in gradients:
                norm, updated = self.optimizers[part].apply(gradients[part], loss)
            metrics |= {f"{part}_loss": loss, f"{part}_grad_norm": norm}
            skipped.append(tf.cast(~updated, tf.float32))
        return metrics | {"skipped_updates": tf.reduce_max(skipped)}

    def _build(self) -> None:
        """Create all weights by one pass over an empty batch, so that nothing is created later."""
        shapes = self._spec.observation | {"action": (self._spec.actions,)}
        shapes |= {"reward": (), "discount": ()}
        length = max(2, self._config.model.decoded or 0)
        batch = {key: tf.zeros([1, length, *shape]) for key, shape in shapes.items()}
        feat_size = self._config.model.stoch + self._config.model.deter
        self.actor(tf.zeros([1, feat_size]))
        self.value(tf.zeros([1, feat_size]))
        self._model_loss(batch, tf.zeros([2], tf.int32))


def merge_time(x: tf.Tensor) -> tf.Tensor:
    """Merge batch and time, `[B, T, ...] -> [B * T, ...]`."""
    return tf.reshape(x, [-1, *x.shape[2:]])
