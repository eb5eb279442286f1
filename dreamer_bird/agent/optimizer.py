"""Adam with gradient clipping, skipped updates and loss scaling, one for each group of weights."""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial

import tensorflow as tf

from dreamer_bird.agent.replicas import batch_mean

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # as Keras, which Dreamer uses
GROWTH_INTERVAL = 2000  # finite updates after which the loss scale is doubled
MOST_SCALE = 2.0**24  # else the scale of a loss without a gradient would grow until it is infinite


class Optimizer(tf.Module):
    """Adam on a fixed list of variables."""

    def __init__(
        self, variables: Sequence[tf.Variable], settings: Mapping, loss_scaling: bool, name: str
    ):
        """Take a section of the settings with `lr`, the learning rate, and `clip`, the global norm
        that gradients are clipped to, and whether losses are scaled, as float16 needs.
        """
        super().__init__(name)
        self.weights = list(variables)
        self.lr, self.clip = settings["lr"], settings["clip"]
        self.loss_scaling = loss_scaling
        self.count = tf.Variable(0, dtype=tf.int64, name="count")
        self.first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]
        self.loss_scale = tf.Variable(2.0**15 if loss_scaling else 1.0, name="loss_scale")
        self.finite_in_a_row = tf.Variable(0, dtype=tf.int64, name="finite_in_a_row")

    def gradients(self, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradients of a loss times `loss_scale`."""
        return tape.gradient(loss, self.weights, self.loss_scale)

    def apply(
        self, gradients: Sequence[tf.Tensor], loss: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Update the variables with `gradients` of a loss, unless something is not finite.

        Returns the loss, the global norm of the gradients before clipping, and whether the
        variables were updated: not if the loss or the norm is not finite. Of replicas the means
        count.
        """
        loss, gradients = batch_mean((loss, list(gradients)))
        norm = tf.linalg.global_norm(gradients) / self.loss_scale
        finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        factor = self.clip / tf.maximum(norm, self.clip) / self.loss_scale
        self._adam([tf.where(finite, g * factor, 0.0) for g in gradients], finite)
        if self.loss_scaling:
            self._adjust_scale(finite)
        return loss, norm, finite

    def named_variables(self, names: Mapping[Hashable, str]) -> dict[str, tf.Variable]:
        """Return the optimizer's own state, moments under the names of their variables."""
        named = {key: getattr(self, key) for key in ("count", "loss_scale", "finite_in_a_row")}
        for moment, slots in (("first", self.first), ("second", self.second)):
            for variable, slot in zip(self.weights, slots, strict=True):
                named[f"{moment}/{names[variable.ref()]}"] = slot
        return named

    def _adam(self, gradients: Sequence[tf.Tensor], finite: tf.Tensor) -> None:
        """Update variables and moments, or leave all as they are unless `finite`.

        By numbers instead of a branch, for which the host would wait for a GPU to take it.
        """
        self.count.assign_add(tf.cast(finite, tf.int64))
        count = tf.maximum(tf.cast(self.count, tf.float32), 1.0)
        apply = partial(
            tf.raw_ops.ResourceApplyAdam,
            lr=tf.where(finite, self.lr, 0.0),
            beta1=tf.where(finite, BETA_1, 1.0),
            beta2=tf.where(finite, BETA_2, 1.0),
            beta1_power=BETA_1**count,
            beta2_power=BETA_2**count,
            epsilon=EPSILON,
        )
        columns = self.weights, self.first, self.second, gradients
        for variable, first, second, gradient in zip(*columns, strict=True):
            apply(var=variable.handle, m=first.handle, v=second.handle, grad=gradient)

    def _adjust_scale(self, finite: tf.Tensor) -> None:
        in_a_row = tf.where(finite, self.finite_in_a_row + 1, 0)
        grow = (in_a_row >= GROWTH_INTERVAL) & (self.loss_scale < MOST_SCALE)
        self.finite_in_a_row.assign(tf.where(grow, tf.zeros_like(in_a_row), in_a_row))
        factor = tf.where(finite, tf.where(grow, 2.0, 1.0), 0.5)
        self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))
