"""The recurrent state-space model (Eq. 1), a deterministic GRU path and a stochastic state."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from dreamer_bird.agent.distributions import diagonal_normal, normal_noise, split_seed
from dreamer_bird.agent.layers import Activation, Dense, GRUCell

State = dict[str, tf.Tensor]  # mean, std, stoch [..., S] and deter [..., D], float32


class RSSM(tf.Module):
    """Latent dynamics with a prior p(s_t | s_{t-1}, a_{t-1}) and a posterior that sees o_t too."""

    def __init__(
        self,
        stoch: int = 30,
        deter: int = 200,
        hidden: int = 200,
        act: Activation = tf.nn.elu,
        dtype: tf.DType = tf.float32,
        name: str = "rssm",
    ):
        super().__init__(name)
        self.stoch_size = stoch
        self.deter_size = deter
        self.img1 = Dense(hidden, act, dtype, name="img1")
        self.cell = GRUCell(deter, dtype, name="gru")
        self.img2 = Dense(hidden, act, dtype, name="img2")
        self.img3 = Dense(2 * stoch, None, dtype, name="img3")
        self.obs1 = Dense(hidden, act, dtype, name="obs1")
        self.obs2 = Dense(2 * stoch, None, dtype, name="obs2")

    def initial(self, batch_size: int | tf.Tensor) -> State:
        """Return the zero state, `[B, ...]`."""
        sizes = dict.fromkeys(("mean", "std", "stoch"), self.stoch_size)
        sizes["deter"] = self.deter_size
        return {key: tf.zeros([batch_size, size]) for key, size in sizes.items()}

    def observe(
        self,
        embed: tf.Tensor,
        action: tf.Tensor,
        state: State | None = None,
        seed: tf.Tensor | None = None,
        first: tf.Tensor | None = None,
    ) -> tuple[State, State]:
        """Return posteriors and priors `[B, T, ...]` of a real sequence.

        Args:
            embed: encoded observations, `[B, T, E]`.
            action: `action[:, t]` led to `embed[:, t]`, `[B, T, A]`.
            state: the posterior before the first step; zero if None.
            seed: of all samples, `[2]`; None draws from TensorFlow's global generator.
            first: where another episode begins, and with it the state, bool `[B, T]`.
        """
        state = self.initial(tf.shape(action)[0]) if state is None else state
        post_seed, prior_seed = tf.unstack(split_seed(seed, 2))
        seeds = split_seed(post_seed, tf.shape(action)[1])
        seen, of_deter = self._project_embeddings(embed)
        elements = (time_major(action), time_major(seen), seeds)
        if first is not None:
            kept = 1 - time_major(tf.cast(first, tf.float32))[..., None]
            elements = (elements[0] * kept, *elements[1:], kept)

        def step(post: State, element: tuple) -> State:
            action, seen, seed, *kept = element
            if kept:
                post = {key: kept[0] * value for key, value in post.items()}
            return self._posterior(self._deter(post, action), seen, of_deter, seed)

        post = {key: time_major(value) for key, value in tf.scan(step, elements, state).items()}
        # No step depends on the prior's sample, so that all priors are computed at once.
        return post, self._prior(post["deter"], prior_seed)

    def imagine(
        self, action: tf.Tensor, state: State | None = None, seed: tf.Tensor | None = None
    ) -> State:
        """Return priors `[B, T, ...]` that follow from actions `[B, T, A]` without observations."""
        state = self.initial(tf.shape(action)[0]) if state is None else state
        elements = (time_major(action), split_seed(seed, tf.shape(action)[1]))
        priors = tf.scan(lambda prior, element: self.img_step(prior, *element), elements, state)
        return {key: time_major(value) for key, value in priors.items()}

    def obs_step(
        self,
        prev_state: State,
        prev_action: tf.Tensor,
        embed: tf.Tensor,
        seed: tf.Tensor | None = None,
    ) -> tuple[State, State]:
        """Return posterior and prior `[B, ...]` one step on, given the embedding `[B, E]`."""
        post_seed, prior_seed = tf.unstack(split_seed(seed, 2))
        prior = self.img_step(prev_state, prev_action, prior_seed)
        return self._posterior(prior["deter"], *self._project_embeddings(embed), post_seed), prior

    def img_step(
        self, prev_state: State, prev_action: tf.Tensor, seed: tf.Tensor | None = None
    ) -> State:
        """Return the prior `[B, ...]` one step on, given the action `[B, A]`."""
        return self._prior(self._deter(prev_state, prev_action), seed)

    def get_feat(self, state: State) -> tf.Tensor:
        """Return features `[..., S + D]`, the stochastic state first."""
        return tf.concat([state["stoch"], state["deter"]], -1)

    def get_dist(self, state: State) -> tfd.Distribution:
        """Return the distribution of the stochastic state, `[..., S]`."""
        return diagonal_normal(state["mean"], state["std"])

    def _deter(self, state: State, action: tf.Tensor) -> tf.Tensor:
        x = self.img1(tf.concat([state["stoch"], tf.cast(action, tf.float32)], -1))
        return self.cell(x, state["deter"])

    def _prior(self, deter: tf.Tensor, seed: tf.Tensor | None) -> State:
        return self._sample(self.img3(self.img2(deter)), deter, seed)

    def _project_embeddings(self, embed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the share of embeddings `[..., E]` in the posterior's first layer, `[..., H]`, and
        the kernel of the deterministic state's share: the large one for all steps at once.
        """
        of_deter, of_embed = self.obs1.split([self.deter_size, embed.shape[-1]])
        return tf.cast(self.obs1.product(embed, of_embed), tf.float32) + self.obs1.bias, of_deter

    def _posterior(
        self, deter: tf.Tensor, seen: tf.Tensor, of_deter: tf.Tensor, seed: tf.Tensor | None
    ) -> State:
        x = self.obs1.act(tf.cast(self.obs1.product(deter, of_deter), tf.float32) + seen)
        return self._sample(self.obs2(x), deter, seed)

    def _sample(self, statistics: tf.Tensor, deter: tf.Tensor, seed: tf.Tensor | None) -> State:
        mean, std = tf.split(tf.cast(statistics, tf.float32), 2, -1)
        std = tf.nn.softplus(std) + 0.1
        stoch = mean + std * normal_noise(tf.shape(mean), seed)
        return {"mean": mean, "std": std, "stoch": stoch, "deter": deter}


def time_major(x: tf.Tensor) -> tf.Tensor:
    """Swap the first two dimensions, `[B, T, ...] <-> [T, B, ...]`."""
    return tf.einsum("bt...->tb...", x)
