"""Encoder, decoder, heads and actor; architecture and layer names are Dreamer's."""

import math

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from dreamer_bird.distributions import OneHot, TanhNormal, UnitNormal
from dreamer_bird.layers import Activation, Conv, Dense, TransposedConv


class ConvEncoder(tf.Module):
    """Images to embeddings of size 32 * depth."""

    def __init__(
        self,
        depth: int = 32,
        act: Activation = tf.nn.relu,
        dtype: tf.DType = tf.float32,
        name: str = "encoder",
    ):
        super().__init__(name)
        self.size = 32 * depth
        self.layers = [
            Conv(multiple * depth, 4, act, dtype, name=f"h{index}")
            for index, multiple in enumerate((1, 2, 4, 8), 1)
        ]

    def __call__(self, obs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Return `[..., 32 * depth]` from `obs["image"]` `[..., 64, 64, 3]` in [-0.5, 0.5]."""
        image = obs["image"]
        x = tf.reshape(image, tf.concat([[-1], tf.shape(image)[-3:]], 0))
        x = tf.ensure_shape(x, [None, *image.shape[-3:]])
        for layer in self.layers:
            x = layer(x)
        return tf.reshape(x, tf.concat([tf.shape(image)[:-3], [self.size]], 0))


class ConvDecoder(tf.Module):
    """Features to images."""

    def __init__(
        self,
        depth: int = 32,
        act: Activation = tf.nn.relu,
        shape: tuple[int, int, int] = (64, 64, 3),
        dtype: tf.DType = tf.float32,
        name: str = "decoder",
    ):
        super().__init__(name)
        self.shape = shape
        self.h1 = Dense(32 * depth, None, dtype, name="h1")
        self.layers = [
            TransposedConv(4 * depth, 5, act, dtype, name="h2"),
            TransposedConv(2 * depth, 5, act, dtype, name="h3"),
            TransposedConv(depth, 6, act, dtype, name="h4"),
            TransposedConv(shape[-1], 6, None, dtype, name="h5"),
        ]

    def __call__(self, features: tf.Tensor) -> UnitNormal:
        """Return the distribution of the image `[..., 64, 64, 3]` given features `[..., F]`."""
        x = self.h1(features)
        x = tf.reshape(x, [-1, 1, 1, self.h1.units])
        for layer in self.layers:
            x = layer(x)
        shape = tf.concat([tf.shape(features)[:-1], self.shape], 0)
        mean = tf.ensure_shape(tf.reshape(x, shape), [*features.shape[:-1], *self.shape])
        return UnitNormal(mean, len(self.shape))


class DenseDecoder(tf.Module):
    """Features to a scalar or a vector: the reward, value and discount heads."""

    def __init__(
        self,
        shape: tuple[int, ...],
        layers: int,
        units: int,
        dist: str = "normal",
        act: Activation = tf.nn.elu,
        dtype: tf.DType = tf.float32,
        name: str = "dense_decoder",
    ):
        """Take `dist`, "normal" for unit variance or "binary" for logits."""
        super().__init__(name)
        self.shape = tuple(shape)
        self.dist = {"normal": self._normal, "binary": self._binary}[dist]
        self.layers = [Dense(units, act, dtype, name=f"h{index}") for index in range(layers)]
        self.hout = Dense(math.prod(self.shape), None, dtype, name="hout")

    def __call__(self, features: tf.Tensor) -> UnitNormal | tfd.Distribution:
        """Return the distribution over `[..., *shape]` given features `[..., F]`."""
        x = features
        for layer in self.layers:
            x = layer(x)
        x = tf.reshape(self.hout(x), tf.concat([tf.shape(features)[:-1], self.shape], 0))
        return self.dist(tf.cast(x, tf.float32))

    def _normal(self, mean: tf.Tensor) -> UnitNormal:
        return UnitNormal(mean, len(self.shape))

    def _binary(self, logits: tf.Tensor) -> tfd.Distribution:
        return tfd.Independent(tfd.Bernoulli(logits), len(self.shape))


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
        name: str = "actor",
    ):
        """Take `dist`, "tanh_normal" for actions in [-1, 1] or "onehot" for discrete ones."""
        super().__init__(name)
        self.min_std = min_std
        self.raw_init_std = init_std + math.log(-math.expm1(-init_std))  # softplus gives init_std
        self.mean_scale = mean_scale
        self.dist, outputs = {
            "tanh_normal": (self._tanh_normal, 2 * size),
            "onehot": (OneHot, size),
        }[dist]
        self.layers = [Dense(units, act, dtype, name=f"h{index}") for index in range(layers)]
        self.hout = Dense(outputs, None, dtype, name="hout")

    def __call__(self, features: tf.Tensor) -> TanhNormal | OneHot:
        """Return the policy's distribution over actions `[..., size]` given features `[..., F]`."""
        x = features
        for layer in self.layers:
            x = layer(x)
        return self.dist(tf.cast(self.hout(x), tf.float32))

    def _tanh_normal(self, x: tf.Tensor) -> TanhNormal:
        mean, std = tf.split(x, 2, -1)
        mean = self.mean_scale * tf.tanh(mean / self.mean_scale)
        std = tf.nn.softplus(std + self.raw_init_std) + self.min_std
        return TanhNormal(mean, std)
