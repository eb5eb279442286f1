"""The world model: what it learns from real sequences, and what it imagines."""

from collections.abc import Mapping

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from dreamer_bird.agent.distributions import split_seed, uniform_noise
from dreamer_bird.agent.layers import weights_read_once
from dreamer_bird.agent.networks import (
    ActionDecoder,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
)
from dreamer_bird.agent.preprocessing import Standardizer
from dreamer_bird.agent.replicas import batch_mean
from dreamer_bird.agent.rssm import RSSM, Carry, State, to_carry
from dreamer_bird.envs.spaces import Spec

IMAGE_STEPS = (1, 5, 15)  # those of which images are predicted too

# Observations [B, T, ...] by name (image, state), action [B, T, A], reward and discount [B, T], and
# first, bool [B, T], where sequences go on from one episode into the next.
Batch = dict[str, tf.Tensor]
Metrics = dict[str, tf.Tensor]  # scalars


class WorldModel(tf.Module):
    """Encoders, latent dynamics and the heads that predict observations, rewards and discounts."""

    def __init__(self, settings: Mapping, gamma: float, spec: Spec, dtype: tf.DType):
        """Take the section `model` of configs.yaml, the discount `gamma` of a state that is not
        terminal (of all without a discount head), what is observed, and the dtype of products.
        """
        super().__init__("world_model")
        self._settings, self.gamma = settings, gamma
        shape = spec.observation.get("image")
        self.standardizer = Standardizer(shape) if shape and settings["standardize"] else None
        self.encoders: dict[str, ConvEncoder | DenseEncoder] = {}
        self.decoders: dict[str, ConvDecoder | DenseDecoder] = {}
        if shape:
            size = settings["depth"], getattr(tf.nn, settings["conv_act"]), shape, dtype
            self.encoders["image"] = ConvEncoder(*size, self.standardizer)
            self.decoders["image"] = ConvDecoder(*size, self.standardizer)
        if shape := spec.observation.get("state"):
            size = settings["state_layers"], settings["units"]
            self.encoders["state"] = DenseEncoder(*size, dtype)
            self.decoders["state"] = DenseDecoder(
                shape, *size, std=settings["state_std"], dtype=dtype, name="state_decoder"
            )
        sizes = settings["stoch"], settings["deter"], settings["hidden"]
        self.rssm = RSSM(*sizes, dtype=dtype)
        units = settings["units"]
        self.reward = DenseDecoder((), settings["reward_layers"], units, dtype=dtype, name="reward")
        self.discount = None
        if settings["discount_head"]:
            layers = settings["discount_layers"]
            self.discount = DenseDecoder((), layers, units, "binary", dtype=dtype, name="discount")

    @property
    def networks(self) -> list[tf.Module]:
        """All networks; their names prefix the checkpoint's variable names."""
        heads = [self.reward, *([self.discount] if self.discount else [])]
        return [*self.encoders.values(), self.rssm, *self.decoders.values(), *heads]

    def embed(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return the embeddings of all observations, one after another, `[..., E]`."""
        return tf.concat([encoder(obs) for encoder in self.encoders.values()], -1)

    def loss(self, batch: Batch, seed: tf.Tensor) -> tuple[tf.Tensor, State, Metrics]:
        """Return the loss, the posterior states `[B, T, ...]` and metrics (Eq. 2, 9).

        With `decode_steps`, only so many random steps of each sequence are decoded: an unbiased
        estimate of the loss.
        """
        settings = self._settings
        embed, first = self.embed(batch), batch.get("first")
        post, prior = self.rssm.observe(embed, batch["action"], seed=seed, first=first)
        feat = self.rssm.get_feat(post)
        post_dist, prior_dist = self.rssm.get_dist(post), self.rssm.get_dist(prior)
        kl = tf.reduce_mean(tfd.kl_divergence(post_dist, prior_dist))
        # Free nats: no gradient while the mean of the whole batch is below the threshold.
        free_nats = settings["free_nats"]
        div = tf.where(batch_mean(tf.stop_gradient(kl)) > free_nats, kl, free_nats)
        seen = {"feat": feat} | {key: batch[key] for key in self.decoders}
        seen = some_steps(seen, settings["decode_steps"], seed)
        losses = {
            f"{key}_loss": -tf.reduce_mean(decoder(seen["feat"]).log_prob(seen[key]))
            for key, decoder in self.decoders.items()
        }
        losses["reward_loss"] = -tf.reduce_mean(self.reward(feat).log_prob(batch["reward"]))
        if self.discount:
            target = self.gamma * batch["discount"]
            log_prob = tf.reduce_mean(self.discount(feat).log_prob(target))
            losses["discount_loss"] = -settings["discount_scale"] * log_prob
        loss = settings["kl_scale"] * div + tf.add_n(list(losses.values()))
        metrics = {
            **losses,
            "model_loss": loss,
            "div": div,
            "kl": kl,
            "prior_ent": tf.reduce_mean(prior_dist.entropy()),
            "post_ent": tf.reduce_mean(post_dist.entropy()),
        }
        return loss, post, metrics

    def imagine(
        self, actor: ActionDecoder, start: State, horizon: int, seed: tf.Tensor
    ) -> tuple[State, dict[str, tf.Tensor]]:
        """Roll the policy out for H steps from N start states `[N, ...]`, without observations.

        Returns the imagined states `[H, N, ...]`, the start states not among them, and the policy's
        entropies `[H, N]` at the states acted from, the start states first: `gaussian`, before the
        tanh, and `tanh`, estimated from the action taken.
        """
        action_seed, state_seed = tf.unstack(split_seed(seed, 2))
        # All noise at once, and all entropies after the loop: few operations are left in it.
        shape = [horizon, tf.shape(start["deter"])[0]]
        action_noise = actor.noise([*shape, actor.size], action_seed, axis=1)
        noise = action_noise, self.rssm.noise(shape, state_seed, axis=1)

        def step(before: tuple[Carry, tf.Tensor], noise: tuple) -> tuple[Carry, tf.Tensor]:
            (_, stoch, deter), _ = before
            # The actor learns through the actions' effect, not by changing what it looks at.
            parameters = actor.parameters(tf.stop_gradient(tf.concat([stoch, deter], -1)))
            action = actor.dist(parameters).sample_by(noise[0])
            return self.rssm.prior_step(before[0], action, noise[1]), parameters

        no_parameters = tf.zeros([shape[1], actor.hout.units])
        with weights_read_once(self.rssm, actor):
            steps, parameters = tf.scan(step, noise, (to_carry(start), no_parameters))
        dist = actor.dist(parameters)
        entropies = {"gaussian": dist.gaussian_entropy(), "tanh": dist.entropy(action_noise)}
        return self.rssm.from_carry(steps), entropies

    def discounts(self, feat: tf.Tensor) -> tf.Tensor:
        """Return the expected discount of states with features `[..., F]`, `[...]`."""
        if self.discount:
            return self.discount(feat).mean()
        return tf.fill(tf.shape(feat)[:-1], self.gamma)

    def log_prob(self, state: State) -> tf.Tensor:
        """Return log p(z | prior) of sampled states under the priors they came from, `[...]`."""
        return self.rssm.get_dist(state).log_prob(state["stoch"])

    def predict(self, batch: Batch, context: int, seed: tf.Tensor) -> tf.Tensor:
        """Return images `[B, T, H, W, 3]`: reconstructions of the first `context` steps, then
        open-loop predictions by the prior with the real actions.
        """
        seen, ahead = tf.unstack(split_seed(seed, 2))
        embed = self.embed({key: batch[key][:, :context] for key in self.encoders})
        post, _ = self.rssm.observe(embed, batch["action"][:, :context], seed=seen)
        last = {key: value[:, -1] for key, value in post.items()}
        prior = self.rssm.imagine(batch["action"][:, context:], last, seed=ahead)
        states = {key: tf.concat([post[key], prior[key]], 1) for key in post}
        return self.decoders["image"](self.rssm.get_feat(states)).mode()

    def open_loop(
        self, batch: Batch, horizon: int, seed: tf.Tensor
    ) -> tuple[State, dict[str, tf.Tensor]]:
        """Predict real sequences without observations, and say how far off that is.

        From the posterior of each step t of a sequence the prior predicts the states at t + 1 ...
        t + H with the real actions, for all t from which H steps fit: N predictions. H, the
        horizon, is less than T. States are sampled on the way, as in imagination.

        Returns:
            The N states that the predictions begin from, `[N, ...]`, and

            latent_error: Euclidean distance between the means of the predicted stochastic state and
                of the posterior, which has seen all observations until then, `[N, H]`; between
                samples most of the distance would be noise.
            reward, true_reward: as predicted and as it was, `[N, H]`.
            image_error, image_guess: squared distance of the predicted image from the real one, and
                of the batch's mean image, at `IMAGE_STEPS`, `[N, I]`; if there are images.
            confidence: log p of the predicted states, summed over the horizon as Eq. 10's, `[N]`.
        """
        seen, ahead = tf.unstack(split_seed(seed, 2))
        post, _ = self.rssm.observe(self.embed(batch), batch["action"], seed=seen)
        length = batch["action"].shape[1]
        times = tf.range(length - horizon)[:, None] + tf.range(1, horizon + 1)

        def windows(x: tf.Tensor) -> tf.Tensor:
            return tf.reshape(tf.gather(x, times, axis=1), [-1, horizon, *x.shape[2:]])

        start = {key: merge_time(value[:, : length - horizon]) for key, value in post.items()}
        prior = self.rssm.imagine(windows(batch["action"]), start, seed=ahead)
        feat = self.rssm.get_feat(prior)
        found = {
            "latent_error": tf.norm(prior["mean"] - windows(post["mean"]), axis=-1),
            "reward": self.reward(feat).mode(),
            "true_reward": windows(batch["reward"]),
            "confidence": tf.reduce_sum(self.log_prob(prior), -1),
        }
        if "image" in self.decoders:
            steps = [step - 1 for step in IMAGE_STEPS if step <= horizon]
            image = batch["image"]
            truth = tf.gather(image, tf.gather(times, steps, axis=1), axis=1)
            truth = tf.reshape(truth, [-1, len(steps), *image.shape[2:]])
            predicted = self.decoders["image"](tf.gather(feat, steps, axis=1)).mode()
            mean = tf.reduce_mean(image, [0, 1])
            for key, guess in (("image_error", predicted), ("image_guess", mean)):
                found[key] = tf.reduce_sum(tf.square(guess - truth), [-3, -2, -1])
        return start, found


def merge_time(x: tf.Tensor) -> tf.Tensor:
    """Merge batch and time, `[B, T, ...] -> [B * T, ...]`."""
    return tf.reshape(x, [-1, *x.shape[2:]])


def some_steps(sequences: State, count: int | None, seed: tf.Tensor) -> State:
    """Return `count` random steps of each sequence, `[B, T, ...] -> [B, count, ...]`.

    Without replacement, and the same steps in every tensor. With None, all steps in their order.
    """
    if count is None:
        return sequences
    shape = tf.shape(next(iter(sequences.values())))[:2]
    # Callers split the same seed in two: the third of three is none of theirs.
    scores = uniform_noise(shape, split_seed(seed, 3)[2])
    steps = tf.math.top_k(scores, count).indices
    return {key: tf.gather(value, steps, batch_dims=1) for key, value in sequences.items()}
