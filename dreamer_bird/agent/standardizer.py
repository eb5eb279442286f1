"""Images standardised: less the mean image, in units of the deviation from it."""

import tensorflow as tf

LEAST_VARIANCE = 1e-8  # images may all be the same


class Standardizer(tf.Module):
    """The mean of all images learned from so far, and their deviation from it.

    What stands still fills most of an image, and drowns the little that moves.
    """

    def __init__(self, shape: tuple[int, int, int], name: str = "standardizer"):
        super().__init__(name)
        self.mean = tf.Variable(tf.zeros(shape), trainable=False, name="mean")
        self.std = tf.Variable(1.0, trainable=False, name="std")  # one for all pixels
        self.count = tf.Variable(0.0, trainable=False, name="count")

    def update(self, images: tf.Tensor) -> None:
        """Take the images of an update `[B, T, H, W, C]` in; each update counts the same."""
        share = 1 / self.count.assign_add(1)
        self.mean.assign_add(share * (tf.reduce_mean(images, [0, 1]) - self.mean))
        variance = tf.reduce_mean(tf.square(images - self.mean))
        mean_variance = tf.square(self.std) + share * (variance - tf.square(self.std))
        self.std.assign(tf.sqrt(tf.maximum(mean_variance, LEAST_VARIANCE)))

    def named_variables(self) -> dict[str, tf.Variable]:
        """Return what a checkpoint holds of it, by name."""
        values = {"mean": self.mean, "std": self.std, "count": self.count}
        return {f"{self.name}/{name}": value for name, value in values.items()}

    def standardize(self, images: tf.Tensor) -> tf.Tensor:
        """Return images `[..., H, W, C]` as the encoder sees them."""
        return (images - self.mean) / self.std

    def restore(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the images `[..., H, W, C]` that the decoder's outputs stand for."""
        return self.mean + self.std * tf.cast(outputs, tf.float32)
