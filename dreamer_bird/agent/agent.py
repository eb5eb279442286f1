"""The agent: acts with `policy`, learns with `train_step`."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from dreamer_bird.agent import replicas
from dreamer_bird.agent.actor_critic import ActorCritic
from dreamer_bird.agent.distributions import OneHot, normal_noise, split_seed, uniform_noise
from dreamer_bird.agent.layers import weights_from
from dreamer_bird.agent.objectives import OBJECTIVES
from dreamer_bird.agent.optimizer import Optimizer
from dreamer_bird.agent.planner import Planner
from dreamer_bird.agent.precision import resolve_precision, resolve_xla
from dreamer_bird.agent.preprocessing import preprocess
from dreamer_bird.agent.rssm import State
from dreamer_bird.agent.world_model import Batch, Metrics, WorldModel
from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import CheckpointError, DeviceMemoryError
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays

PolicyState = tuple[State, tf.Tensor]  # latent state and the action that followed it
Learning = dict[str, tuple[tf.GradientTape, tf.Tensor]]  # tapes and losses of the parts that learn


class Agent(tf.Module):
    """World model, actor and value, and how they learn.

    A variant that has no objective for an actor has neither actor nor value: it plans.
    """

    def __init__(self, config: Config, spec: Spec, learns: bool = True):
        """Build all networks, with weights that depend on `config.seed` alone.

        Built in the scope of a `tf.distribute` strategy, its replicas share every update. Without
        `learns` it only acts, and has no optimizers.
        """
        super().__init__("agent")
        self._config, self._spec = config, spec
        self._strategy = tf.distribute.get_strategy()
        dtype = tf.as_dtype(resolve_precision(config.precision))
        self.world_model = WorldModel(config.model, config.objective.discount, spec, dtype)
        learns_to_act = config.variant in OBJECTIVES
        self.actor_critic = ActorCritic(config, spec, dtype) if learns_to_act else None
        self._planner = None if learns_to_act else Planner(config.planner, spec)
        behaviour = self.actor_critic.networks if self.actor_critic else []
        self._networks = [*self.world_model.networks, *behaviour]
        with weights_from(seeds.generator(config.seed, "weights")):
            self._build()
        parts = {"model": self.world_model} | {network.name: network for network in behaviour}
        self.optimizers = {
            name: Optimizer(part.trainable_variables, config[name], dtype == tf.float16, name)
            for name, part in parts.items()
            if learns
        }
        self._actor_waits = 1  # updates until the counter is read again; 0 once the actor learns
        self.compiled = resolve_xla(config.xla, self._strategy.num_replicas_in_sync)
        self._trace()

    def initial(self, batch_size: int) -> PolicyState:
        """Return the policy's state before the first step of an episode, `[B, ...]`."""
        action = tf.zeros([batch_size, self._spec.actions])
        return self.world_model.rssm.initial(batch_size), action

    def policy(
        self, obs: dict[str, tf.Tensor], state: PolicyState, seed: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, PolicyState]:
        """Act on observations `[B, ...]` as the environment gives them.

        Returns actions `[B, A]`, in [-1, 1] or one-hot, sampled and explored with if `training`,
        else the mode of the policy, and the state to pass with the next observations. A plan is
        the same in both cases, but for the exploration.
        """
        latent_seed, action_seed, noise_seed = tf.unstack(split_seed(seed, 3))
        latent, action = state
        embed = self.world_model.embed(preprocess(obs))
        latent, _ = self.world_model.rssm.obs_step(latent, action, embed, latent_seed)
        if self._planner:
            action = self._planner.act(self.world_model, latent, action_seed)
        else:
            feat = self.world_model.rssm.get_feat(latent)
            action = self.actor_critic.act(feat, action_seed, training)
        action = self._explore(action, noise_seed) if training else action
        return action, (latent, action)

    def use_planner(self, with_value: bool) -> None:
        """Plan instead of acting by the policy; to be called before the first action.

        `with_value`: with the value function, which there must be, at the horizon.
        """
        value = self.actor_critic.value if with_value else None
        self._planner = Planner(self._config.planner, self._spec, value)

    def act(
        self, obs: Arrays, state: PolicyState | None, seed: np.ndarray, training: bool
    ) -> tuple[np.ndarray, PolicyState]:
        """Do what `policy` does, from and to arrays; episodes begin where there is no state."""
        state = self.initial(len(next(iter(obs.values())))) if state is None else state
        action, state = self._call("policy", obs, state, seed, training)
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
                observation at `t`, and `reward[:, t]` came with it. Where sequences run from one
                episode into the next, `first`, bool `[B, T]`, marks its first step.
            seed: of all samples, `[2]`.
        """
        if self.actor_critic and self._actor_waits:
            self._actor_waits -= 1
            if not self._actor_waits:  # only now, as reading the counter waits for the device
                made = int(self.optimizers["value"].count.numpy())
                self._actor_waits = max(0, self._config.actor.learning_starts - made)
        return self._call("update", batch, seed, not self._actor_waits)

    @property
    def traces(self) -> int:
        """How often an update was traced, and compiled if it is `compiled`: at most twice."""
        return self._traced["update"].experimental_get_tracing_count()

    def _trace(self) -> None:
        """Have policy and updates traced when first called, and compiled by XLA if `compiled`."""
        # No Python control flow depends on tensors; tracing without autograph takes half the time.
        trace = partial(tf.function, autograph=False, jit_compile=self.compiled)
        self._traced = {"policy": trace(self.policy), "update": trace(self._shared_update)}

    def _call(self, name: str, *arguments: object) -> Any:
        """Call what was traced; where `xla` is auto and XLA cannot compile it, go on without."""
        function = self._traced[name]
        before = function.experimental_get_tracing_count()
        try:
            return function(*arguments)
        except tf.errors.OpError as error:
            reason = error.message.partition("\n")[0]
            new = function.experimental_get_tracing_count() > before
            if not (new and self.compiled and self._config.xla == "auto"):
                if isinstance(error, tf.errors.ResourceExhaustedError):
                    told = f"the device has too little memory ({reason})"
                    raise DeviceMemoryError(
                        f"{told}: a smaller --replay.batch takes less"
                    ) from error
                raise
            told = f"XLA cannot compile here ({reason})"
            warnings.warn(f"{told}: it goes on without, as by --xla false", stacklevel=2)
        self.compiled = False
        self._trace()
        return self._call(name, *arguments)

    def _shared_update(self, batch: Batch, seed: tf.Tensor, actor_learns: bool = True) -> Metrics:
        if self.compiled:  # fixes the order of its arguments, by which XLA's cache knows it again
            for variable in self.named_variables().values():
                variable.read_value()
        return replicas.run(self._strategy, self._update, batch, seed, actor_learns)

    def _update(self, batch: Batch, seed: tf.Tensor, actor_learns: bool) -> Metrics:
        """Do what `train_step` does, with the part of the batch that a replica has."""
        model_seed, imagine_seed = tf.unstack(split_seed(seed, 2))
        batch = preprocess(batch)
        if self.world_model.standardizer:
            self.world_model.standardizer.update(batch["image"])
        with tf.GradientTape() as model_tape:
            model_loss, post, metrics = self.world_model.loss(batch, model_seed)
        learning = {"model": (model_tape, model_loss)}
        # Outside the model's tape: the behaviour does not train the model.
        if self.actor_critic:
            behaviour, more = self._behaviour(post, batch["discount"], imagine_seed, actor_learns)
            learning, metrics = learning | behaviour, metrics | more
        # All gradients are taken before any update: each part sees the same weights of the others.
        gradients = {
            part: self.optimizers[part].gradients(tape, loss)
            for part, (tape, loss) in learning.items()
        }
        skipped = tf.zeros([])
        for part, (_, loss) in learning.items():
            loss, norm, updated = self.optimizers[part].apply(gradients[part], loss)
            metrics |= {f"{part}_loss": loss, f"{part}_grad_norm": norm}
            skipped = tf.maximum(skipped, tf.cast(~updated, tf.float32))
        return metrics | {"skipped_updates": skipped}

    def _behaviour(
        self, post: State, discount: tf.Tensor, seed: tf.Tensor, actor_learns: bool
    ) -> tuple[Learning, Metrics]:
        """Return what actor and value learn from rollouts from posterior states `[B, T, ...]`."""
        with tf.GradientTape() as actor_tape:
            rollouts = self.actor_critic.imagine(self.world_model, post, discount, seed)
            # Opened after the rollout: the value's gradient does not pass through it.
            with tf.GradientTape() as value_tape:
                losses = self.actor_critic.losses(self.world_model, rollouts)
        actor_loss, value_loss, metrics = losses
        learning = {"value": (value_tape, value_loss)}
        learning |= {"actor": (actor_tape, actor_loss)} if actor_learns else {}
        return learning, metrics | {"actor_loss": actor_loss, "actor_grad_norm": tf.zeros([])}

    def _explore(self, action: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Add Gaussian noise of std `expl_amount`; one-hot: be random with that probability."""
        amount = self._config.train.expl_amount
        if not self._spec.discrete:
            noise = amount * normal_noise(tf.shape(action), seed)
            return tf.clip_by_value(action + noise, -1, 1)
        replace_seed, action_seed = tf.unstack(split_seed(seed, 2))
        replaced = uniform_noise([tf.shape(action)[0], 1], replace_seed) < amount
        return tf.where(replaced, OneHot(tf.zeros_like(action)).sample(action_seed), action)

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
    def open_loop(self, batch: Batch, horizon: int, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return what `WorldModel.open_loop` does of a batch as the replay gives it.

        And `imagined_reward`, `[N, H]`: what the actor, if there is one, would earn instead, from
        the same states.
        """
        model_seed, imagine_seed = tf.unstack(split_seed(seed, 2))
        start, found = self.world_model.open_loop(preprocess(batch), horizon, model_seed)
        if not self.actor_critic:
            return found
        states, _ = self.world_model.imagine(self.actor_critic.actor, start, horizon, imagine_seed)
        reward = self.world_model.reward(self.world_model.rssm.get_feat(states)).mode()
        return found | {"imagined_reward": tf.transpose(reward)}

    def named_variables(self) -> dict[str, tf.Variable]:
        """Return weights and optimizer slots by names such as `encoder/h1/kernel`."""
        weights = {
            f"{network.name}/{variable.name.removesuffix(':0')}": variable
            for network in self._networks
            for variable in network.trainable_variables
        }
        names = {variable.ref(): name for name, variable in weights.items()}
        if self.world_model.standardizer:
            weights |= self.world_model.standardizer.named_variables()
        for key, optimizer in self.optimizers.items():
            slots = optimizer.named_variables(names)
            weights |= {f"{key}_optimizer/{name}": slot for name, slot in slots.items()}
        return weights

    def assign(self, arrays: Arrays, loss_scale: bool = True) -> None:
        """Take over what `named_variables` named; `loss_scale`: the loss scales too.

        Raises CheckpointError that names the first array that is missing, foreign or of other size.
        """
        self._actor_waits = 1  # until the counter that is loaded here is read
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

    def _build(self) -> None:
        """Create all weights by one pass over an empty batch, so that nothing is created later."""
        shapes = self._spec.observation | {"action": (self._spec.actions,)}
        shapes |= {"reward": (), "discount": ()}
        length = max(2, self._config.model.decode_steps or 0)
        batch = {key: tf.zeros([1, length, *shape]) for key, shape in shapes.items()}
        _, post, _ = self.world_model.loss(batch, tf.zeros([2], tf.int32))
        feat = self.world_model.rssm.get_feat(post)
        for network in self.actor_critic.networks if self.actor_critic else ():
            network(feat)
