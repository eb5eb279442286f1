"""Encoder, decoder, heads and actor; architecture and layer names are Dreamer's."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from dreamer_bird.agent.distributions import FixedNormal, OneHot, TanhNormal
from dreamer_bird.agent.geometry import KERNEL, decoder_kernels, encoder_sides
from dreamer_bird.agent.layers import Activation, Conv, Dense, TransposedConv, through
from dreamer_bird.agent.preprocessing import Standardizer


class ConvEncoder(tf.Module):
    """Images to embeddings, of size 32 * depth for images of 64x64."""

    def __init__(
        self,
        depth: int = 32,
        act: Activation = tf.nn.relu,
        shape: tuple[int, int, int] = (64, 64, 3),
        dtype: tf.DType = tf.float32,
        standardizer: Standardizer | None = None,
    ):
        super().__init__("encoder")
        self.standardizer = standardizer
        sides = encoder_sides(shape[0])
        self.layers = [
            Conv(2**index * depth, KERNEL, act, dtype, name=f"h{index + 1}")
            for index in range(len(sides))
        ]
        self.size = sides[-1] ** 2 * self.layers[-1].filters

    def __call__(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return `[..., size]` from `obs["image"]` `[..., H, W, 3]` in [-0.5, 0.5]."""
        image = obs["image"]
        x = tf.reshape(image, tf.concat([[-1], tf.shape(image)[-3:]], 0))
        x = tf.ensure_shape(x, [None, *image.shape[-3:]])
        x = self.standardizer.standardize(x) if self.standardizer else x
        x = through(self.layers, x)
        return tf.reshape(x, tf.concat([tf.shape(image)[:-3], [self.size]], 0))


class ConvDecoder(tf.Module):
    """Features to images."""

    def __init__(
        self,
        depth: int = 32,
        act: Activation = tf.nn.relu,
        shape: tuple[int, int, int] = (64, 64, 3),
        dtype: tf.DType = tf.float32,
        standardizer: Standardizer | None = None,
    ):
        super().__init__("decoder")
        self.standardizer = standardizer
        self.shape = shape
        self.h1 = Dense(32 * depth, None, dtype, name="h1")
        kernels = decoder_kernels(shape[0])
        filters = [*(2**i * depth for i in reversed(range(len(kernels) - 1))), shape[-1]]
        acts = [act] * (len(kernels) - 1) + [None]
        sizes = zip(filters, kernels, acts, strict=True)
        self.layers = [
            TransposedConv(count, kernel, each, dtype, name=f"h{i}")
            for i, (count, kernel, each) in enumerate(sizes, 2)
        ]

    def __call__(self, features: tf.Tensor) -> FixedNormal:
        """Return the distribution of the image `[..., *shape]` given features `[..., F]`."""
        x = tf.reshape(self.h1(features), [-1, 1, 1, self.h1.units])
        x = through(self.layers, x)
        x = self.standardizer.restore(x) if self.standardizer else x
        shape = tf.concat([tf.shape(features)[:-1], self.shape], 0)
        mean = tf.ensure_shape(tf.reshape(x, shape), [*features.shape[:-1], *self.shape])
        return FixedNormal(mean, len(self.shape))


class DenseEncoder(tf.Module):
    """State vectors to embeddings."""

    def __init__(self, layers: int, units: int, dtype: tf.DType = tf.float32):
        super().__init__("state_encoder")
        self.layers = [Dense(units, tf.nn.elu, dtype, name=f"h{i}") for i in range(layers)]

    def __call__(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return `[..., units]` from `obs["state"]` `[..., S]`."""
        return through(self.layers, obs["state"])


class DenseDecoder(tf.Module):
    """Features to a scalar or a vector: the reward, value and discount heads."""

    def __init__(
        self,
        shape: tuple[int, ...],
        layers: int,
        units: int,
        dist: str = "normal",
        act: Activation = tf.nn.elu,
        std: float = 1.0,
        dtype: tf.DType = tf.float32,
        name: str = "dense_decoder",
    ):
        """Take `dist`, "normal" for one of a fixed `std` or "binary" for logits."""
        super().__init__(name)
        self.shape, dims = tuple(shape), len(shape)
        self.dist = {
            "normal": lambda mean: FixedNormal(mean, dims, std),
            "binary": lambda logits: tfd.Independent(tfd.Bernoulli(logits), dims),
        }[dist]
        self.layers = [Dense(units, act, dtype, name=f"h{index}") for index in range(layers)]
        # In float32: bfloat16 would round a value of 600 to a multiple of 4.
        self.hout = Dense(math.prod(self.shape), name="hout")

    def __call__(self, features: tf.Tensor) -> FixedNormal | tfd.Distribution:
        """Return the distribution over `[..., *shape]` given features `[..., F]`."""
        x = through(self.layers, tf.reshape(features, [-1, features.shape[-1]]))
        x = tf.reshape(self.hout(x), tf.concat([tf.shape(features)[:-1], self.shape], 0))
        return self.dist(x)


class ActionDecoder(tf.Module):
    """Features to a distribution over actions: the policy."""

    def __init__(
        self,
        size: int,
        layers: int,
        units: int,
        dist: str = "tanh_normal",
        act: Activation = tf.nn.elu,
        min_std: float = 1e-4,
        init_std: float = 5.0,
        mean_scale: float = 5.0,
        dtype: tf.DType = tf.float32,
    ):
        """Take `dist`, "tanh_normal" for actions in [-1, 1] or "onehot" for discrete ones."""
        super().__init__("actor")
        self.min_std = min_std
        self.raw_init_std = init_std + math.log(-math.expm1(-init_std))  # softplus gives init_std
        self.mean_scale = mean_scale
        self.size = size
        self.dist, self.noise, outputs = {
            "tanh_normal": (self._tanh_normal, TanhNormal.noise, 2 * size),
            "onehot": (OneHot, OneHot.noise, size),
        }[dist]
        self.layers = [Dense(units, act, dtype, name=f"h{index}") for index in range(layers)]
        self.hout = Dense(outputs, name="hout")  # in float32

    def __call__(self, features: tf.Tensor) -> TanhNormal | OneHot:
        """Return the policy's distribution over actions `[..., size]` given features `[..., F]`."""
        return self.dist(self.parameters(features))

    def parameters(self, features: tf.Tensor) -> tf.Tensor:
        """Return what `dist` makes a distribution of, float32, given features `[..., F]`."""
        return self.hout(through(self.layers, features))

    def _tanh_normal(self, x: tf.Tensor) -> TanhNormal:
        mean, std = tf.split(x, 2, -1)
        mean = self.mean_scale * tf.tanh(mean / self.mean_scale)
        std = tf.nn.softplus(std + self.raw_init_std) + self.min_std
        return TanhNormal(mean, std)
