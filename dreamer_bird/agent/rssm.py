"""The recurrent state-space model (Eq. 1), a deterministic GRU path and a stochastic state."""

from collections.abc import Iterable

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from dreamer_bird.agent.distributions import normal_noise, split_seed
from dreamer_bird.agent.layers import Activation, Dense, GRUCell, weights_read_once

State = dict[str, tf.Tensor]  # mean, std, stoch [..., S] and deter [..., D], float32
# The same from step to step of a loop: statistics [..., 2 S], of which `RSSM.from_carry` makes mean
# and std; no step reads those of the step before. Then stoch and deter.
Carry = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class RSSM(tf.Module):
    """Latent dynamics with a prior p(s_t | s_{t-1}, a_{t-1}) and a posterior that sees o_t too."""

    def __init__(
        self,
        stoch: int = 30,
        deter: int = 200,
        hidden: int = 200,
        act: Activation = tf.nn.elu,
        dtype: tf.DType = tf.float32,
    ):
        super().__init__("rssm")
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
        action = time_major(action)
        noise = self.noise(tf.shape(action)[:2], post_seed, axis=1)
        kept = []
        if first is not None:
            kept = [1 - time_major(tf.cast(first, tf.float32))[..., None]]
            action = kept[0] * action
        embed_share, finish_obs1 = self.obs1.ahead_of_loop(time_major(embed), self.deter_size)
        action_share, finish_img1 = self.img1.ahead_of_loop(action, self.stoch_size)

        def step(before: Carry, element: list[tf.Tensor]) -> Carry:
            _, stoch, deter = before
            embed_share, action_share, noise, *kept = element
            if kept:
                stoch, deter = kept[0] * stoch, kept[0] * deter
            deter = self.cell(finish_img1(stoch, action_share), deter)
            return self._sample(self.obs2(finish_obs1(deter, embed_share)), deter, noise)

        with weights_read_once(self):
            steps = tf.scan(step, [embed_share, action_share, noise, *kept], to_carry(state))
        post = self.from_carry(map(time_major, steps))
        # No step depends on the prior's sample, so that all priors are computed at once.
        noise = self.noise(tf.shape(post["deter"])[:-1], prior_seed)
        return post, self.from_carry(self._prior(post["deter"], noise))

    def imagine(
        self, action: tf.Tensor, state: State | None = None, seed: tf.Tensor | None = None
    ) -> State:
        """Return priors `[B, T, ...]` that follow from actions `[B, T, A]` without observations."""
        state = self.initial(tf.shape(action)[0]) if state is None else state
        action = time_major(action)
        elements = (action, self.noise(tf.shape(action)[:2], seed, axis=1))
        with weights_read_once(self):
            priors = tf.scan(
                lambda prior, element: self.prior_step(prior, *element), elements, to_carry(state)
            )
        return self.from_carry(map(time_major, priors))

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
        deter = prior["deter"]
        statistics = self.obs2(self.obs1(tf.concat([deter, tf.cast(embed, tf.float32)], -1)))
        noise = self.noise(tf.shape(deter)[:-1], post_seed)
        return self.from_carry(self._sample(statistics, deter, noise)), prior

    def img_step(
        self, prev_state: State, prev_action: tf.Tensor, seed: tf.Tensor | None = None
    ) -> State:
        """Return the prior `[B, ...]` one step on, given the action `[B, A]`."""
        noise = self.noise(tf.shape(prev_action)[:-1], seed)
        return self.from_carry(self.prior_step(to_carry(prev_state), prev_action, noise))

    def prior_step(self, before: Carry, action: tf.Tensor, noise: tf.Tensor) -> Carry:
        """Do what `img_step` does, in a loop, with standard normal noise `[B, S]`."""
        _, stoch, deter = before
        x = self.img1(tf.concat([stoch, tf.cast(action, tf.float32)], -1))
        return self._prior(self.cell(x, deter), noise)

    def from_carry(self, steps: Iterable[tf.Tensor]) -> State:
        """Return the states of a loop's steps, `[..., S]` and `[..., D]`."""
        statistics, stoch, deter = steps
        mean, std = _normal(statistics)
        return {"mean": mean, "std": std, "stoch": stoch, "deter": deter}

    def noise(self, shape: tf.Tensor, seed: tf.Tensor | None, axis: int = 0) -> tf.Tensor:
        """Return standard normal noise for samples of the state, `[*shape, S]`, batch at `axis`."""
        return normal_noise(tf.concat([shape, [self.stoch_size]], 0), seed, axis)

    def get_feat(self, state: State) -> tf.Tensor:
        """Return features `[..., S + D]`, the stochastic state first."""
        return tf.concat([state["stoch"], state["deter"]], -1)

    def get_dist(self, state: State) -> tfd.Distribution:
        """Return the distribution of the stochastic state, `[..., S]`."""
        return tfd.Independent(tfd.Normal(state["mean"], state["std"]), 1)

    def _prior(self, deter: tf.Tensor, noise: tf.Tensor) -> Carry:
        return self._sample(self.img3(self.img2(deter)), deter, noise)

    def _sample(self, statistics: tf.Tensor, deter: tf.Tensor, noise: tf.Tensor) -> Carry:
        statistics = tf.cast(statistics, tf.float32)
        mean, std = _normal(statistics)
        return statistics, mean + std * noise, deter


def to_carry(state: State) -> Carry:
    """Return a state to begin a loop from; its mean and std play no part in what follows."""
    return tf.concat([state["mean"], state["std"]], -1), state["stoch"], state["deter"]


def time_major(x: tf.Tensor) -> tf.Tensor:
    """Swap the first two dimensions, `[B, T, ...] <-> [T, B, ...]`."""
    return tf.einsum("bt...->tb...", x)


def _normal(statistics: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean, std = tf.split(statistics, 2, -1)
    return mean, tf.nn.softplus(std) + 0.1
