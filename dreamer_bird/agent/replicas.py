"""Replicas share an update: each has a part of the batch, and all have the same weights.

One update by N replicas is the update by one. So whatever depends on the whole batch (means that
losses are not linear in, gradients, metrics) goes through `batch_mean`, and random numbers are
drawn for the whole batch, of which each replica takes its part. All parts are of the same size.
Outside a strategy of `tf.distribute` there is one replica, and every function returns what it got.
"""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

Nest = TypeVar("Nest")  # tensors, or dicts, lists and tuples of them
_context = tf.distribute.get_replica_context


def run(
    strategy: tf.distribute.Strategy,
    update: Callable[..., dict[str, tf.Tensor]],
    batch: dict[str, tf.Tensor],
    seed: tf.Tensor,
    *arguments: object,
) -> dict[str, tf.Tensor]:
    """Run an update on all replicas, each with its part of the batch; return its metrics' means."""

    def on_replica(batch: dict[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        batch, seed = from_chief((batch, seed))
        return batch_mean(update(own_part(batch), seed, *arguments))

    metrics = strategy.run(on_replica, (batch, seed))
    # All replicas have the same.
    return {key: strategy.experimental_local_results(x)[0] for key, x in metrics.items()}


def batch_mean(values: Nest) -> Nest:
    """Return the mean over all replicas of what each has computed; not to be differentiated."""
    count, _ = _replica()
    if count == 1:
        return values
    return _context().all_reduce(tf.distribute.ReduceOp.MEAN, values)


def whole_batch(part: tf.Tensor) -> tf.Tensor:
    """Return the parts `[n, ...]` of all replicas in their order, `[N, ...]`."""
    count, _ = _replica()
    return part if count == 1 else _context().all_gather(part, axis=0)


def own_part(whole: Nest) -> Nest:
    """Return what of tensors `[N, ...]` is this replica's, `[n, ...]`."""
    count, number = _replica()
    if count == 1:
        return whole

    def part(x: tf.Tensor) -> tf.Tensor:
        size = x.shape[0] // count
        return tf.ensure_shape(x[number * size : (number + 1) * size], [size, *x.shape[1:]])

    with tf.device("CPU:0"):  # so that a part alone travels to its device
        return tf.nest.map_structure(part, whole)


def per_replica_random(
    draw: Callable[[tf.Tensor], tf.Tensor], shape: tf.Tensor | list, axis: int
) -> tf.Tensor:
    """Draw random numbers for the whole batch; return this replica's part, which has the shape.

    `draw` takes the shape of the whole, which is larger along `axis`.
    """
    count, number = _replica()
    if count == 1:
        return draw(shape)
    before, size, after = tf.split(shape, [axis, 1, -1])
    whole = draw(tf.concat([before, count * size, after], 0))
    parts = tf.reshape(whole, tf.concat([before, [count], size, after], 0))
    return tf.gather(parts, number, axis=axis)


def from_chief(values: Nest) -> Nest:
    """Return the first replica's values, bit for bit, whatever the others have in their place."""
    if not isinstance(_context().strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return values  # one process, whose replicas were given the same
    _, number = _replica()
    flat = tf.nest.flatten(values)
    bits = [tf.where(tf.equal(number, 0), _as_int32(x), 0) for x in flat]
    bits = _context().all_reduce(tf.distribute.ReduceOp.SUM, bits)
    restored = [_from_int32(each, x) for each, x in zip(bits, flat, strict=True)]
    return tf.nest.pack_sequence_as(values, restored)


def _replica() -> tuple[int, int | tf.Tensor]:
    """Return how many replicas there are, and which of them this is."""
    context = _context()
    if context is None:  # where weights are made, for all replicas at once
        return 1, 0
    return context.num_replicas_in_sync, context.replica_id_in_sync_group


def _as_int32(x: tf.Tensor) -> tf.Tensor:
    """Return the bits as int32: hosts exchange no bytes, and sums of floats lose -0 and NaN."""
    if x.dtype == tf.bool:
        return tf.cast(x, tf.int32)
    if x.dtype == tf.uint8:
        x = tf.reshape(x, [-1, 4])  # images are of a multiple of 16 pixels
    return tf.bitcast(x, tf.int32)


def _from_int32(bits: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    if like.dtype == tf.bool:
        return tf.cast(bits, tf.bool)
    return tf.reshape(tf.bitcast(bits, like.dtype), like.shape)
