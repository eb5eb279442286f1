"""Observations as the networks see them."""

import tensorflow as tf

from dreamer_bird.agent.replicas import batch_mean

LEAST_VARIANCE = 1e-8  # images may all be the same


def preprocess(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return a batch as the replay gives it with its observations scaled for the networks."""
    scalings = {"image": scale_image, "state": symlog}
    return {key: scalings.get(key, tf.identity)(value) for key, value in batch.items()}


def scale_image(image: tf.Tensor) -> tf.Tensor:
    """Return uint8 images as float32 in [-0.5, 0.5]."""
    return tf.cast(image, tf.float32) / 255 - 0.5


def symlog(x: tf.Tensor) -> tf.Tensor:
    """Return sign(x) log(1 + abs(x)): tames large values, leaves small ones (DreamerV3)."""
    return tf.sign(x) * tf.math.log1p(tf.abs(x))


class Standardizer(tf.Module):
    """The mean of all images learned from so far, and their deviation from it.

    What stands still fills most of an image, and drowns the little that moves.
    """

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__("standardizer")
        self.mean = tf.Variable(tf.zeros(shape), trainable=False, name="mean")
        self.std = tf.Variable(1.0, trainable=False, name="std")  # one for all pixels
        self.count = tf.Variable(0.0, trainable=False, name="count")

    def update(self, images: tf.Tensor) -> None:
        """Fold a batch `[B, T, H, W, C]` into mean and deviation; every batch counts the same."""
        share = 1 / self.count.assign_add(1)
        mean = batch_mean(tf.reduce_mean(images, [0, 1]))
        self.mean.assign_add(share * (mean - self.mean))
        variance = batch_mean(tf.reduce_mean(tf.square(images - self.mean)))
        mean_variance = tf.square(self.std) + share * (variance - tf.square(self.std))
        self.std.assign(tf.sqrt(tf.maximum(mean_variance, LEAST_VARIANCE)))

    def named_variables(self) -> dict[str, tf.Variable]:
        """Return what a checkpoint holds of it, by name."""
        return {f"{self.name}/{key}": getattr(self, key) for key in ("mean", "std", "count")}

    def standardize(self, images: tf.Tensor) -> tf.Tensor:
        """Return images `[..., H, W, C]` as the encoder sees them."""
        return (images - self.mean) / self.std

    def restore(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the images `[..., H, W, C]` that the decoder's outputs stand for."""
        return self.mean + self.std * tf.cast(outputs, tf.float32)
