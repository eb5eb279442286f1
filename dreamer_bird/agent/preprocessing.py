"""Observations as the networks see them."""

import tensorflow as tf


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
