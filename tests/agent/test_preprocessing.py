"""Images less their mean, in units of their deviation, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from dreamer_bird.agent.networks import ConvDecoder, ConvEncoder
from dreamer_bird.agent.preprocessing import Standardizer, scale_image

SHAPE = (16, 16, 3)


def images(seed, spread=40):
    """Return uint8 images of a background that is not the same everywhere."""
    rng = np.random.default_rng(seed)
    background = np.random.default_rng(0).uniform(60, 190, SHAPE)
    return (background + rng.normal(0, spread, (2, 5, *SHAPE))).clip(0, 255).astype(np.uint8)


def updated(*batches):
    standardizer = Standardizer(SHAPE)
    for batch in batches:
        standardizer.update(scale_image(batch))
    return standardizer


def test_mean_and_deviation_are_those_of_all_updates():
    batches = [images(1), images(2, spread=10), images(3)]
    standardizer = updated(*batches)
    values = [batch.astype(np.float64) / 255 - 0.5 for batch in batches]
    means = [np.mean(values[: count + 1], (0, 1, 2)) for count in range(3)]
    variances = [((x - mean) ** 2).mean() for x, mean in zip(values, means, strict=True)]
    np.testing.assert_allclose(standardizer.mean, means[-1], atol=1e-6)
    assert float(standardizer.std) == pytest.approx(np.mean(variances) ** 0.5, rel=1e-5)


def test_one_update_gives_a_mean_of_zero_and_a_deviation_of_one():
    batch = scale_image(images(1))
    found = updated(images(1)).standardize(batch).numpy()
    assert abs(found.mean((0, 1))).max() < 1e-4
    assert found.std() == pytest.approx(1, rel=1e-4)


def test_restore_undoes_standardize():
    standardizer, batch = updated(images(1)), scale_image(images(2))
    restored = standardizer.restore(standardizer.standardize(batch))
    np.testing.assert_allclose(restored, batch, atol=1e-6)


def test_images_that_are_all_the_same_stay_finite():
    still = np.full((2, 5, *SHAPE), 200, np.uint8)
    found = updated(*[still] * 5)
    assert float(found.std) == pytest.approx(1e-4)
    assert abs(found.standardize(scale_image(still)).numpy()).max() < 0.01


def test_the_encoder_sees_standardised_images():
    standardizer, batch = updated(images(1)), scale_image(images(2))
    encoder = ConvEncoder(depth=2, shape=SHAPE, standardizer=standardizer)
    seen = encoder({"image": batch})
    encoder.standardizer = None
    np.testing.assert_array_equal(seen, encoder({"image": standardizer.standardize(batch)}))
    assert np.abs(seen - encoder({"image": batch})).max() > 0.1


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_the_decoder_gives_images_as_they_are(dtype):
    standardizer = updated(images(1))
    decoder = ConvDecoder(depth=2, shape=SHAPE, standardizer=standardizer, dtype=dtype)
    features = tf.random.stateless_normal([4, 6], [1, 2])
    image = decoder(features).mean()
    decoder.standardizer = None
    outputs = decoder(features).mean()
    assert image.dtype == tf.float32
    np.testing.assert_allclose(image, standardizer.mean + standardizer.std * outputs, rtol=1e-6)
