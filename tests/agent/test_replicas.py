"""One update by several replicas is the update by one."""

import numpy as np
import pytest
from command_line import ROOT, python

PARTS = ("encoder", "rssm", "decoder", "reward", "discount", "actor", "value")
PIXELS = ("--variant", "bird")
ENDING = ("--variant", "soft_bird", "--task", "gym_CartPole-v1", "--obs", "state")


def updates(folder, numbers, *flags):
    """Return what two updates by each of these numbers of replicas give."""
    out = folder / "updates.npz"
    program = ROOT / "tests/helpers/updating.py"
    done = python(program, out, numbers, *flags, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    found = dict(np.load(out))
    return [under(found, number) for number in numbers.split(",")]


def under(found, name):
    """Return what was found under a name, by what follows it."""
    return {key[len(name) + 1 :]: found[key] for key in found if key.startswith(f"{name}/")}


def distance(ours, theirs):
    """Return how far arrays are apart, relative to the norm of all of them."""
    apart = sum(np.square(ours[key] - theirs[key]).sum(dtype=np.float64) for key in theirs)
    size = sum(np.square(theirs[key]).sum(dtype=np.float64) for key in theirs)
    return np.sqrt(apart / size)


def assert_same_updates(ours, theirs):
    assert ours.keys() == theirs.keys()
    for update in ("1", "2"):
        metrics = under(ours, f"{update}/metrics")
        for key, value in under(theirs, f"{update}/metrics").items():
            assert metrics[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
        many, one = (under(found, f"{update}/variables") for found in (ours, theirs))
        # The first moments are sums of gradients, on which their error depends linearly.
        for part in PARTS:
            names = [name for name in one if f"first/{part}" in name]
            pair = [{name: found[name] for name in names} for found in (many, one)]
            assert not names or distance(*pair) < 1e-5, part
        for name, value in one.items():
            # Adam divides by the size of a gradient: where that is next to nothing, its rounding
            # shows as a part of the learning rate, 6e-4.
            np.testing.assert_allclose(many[name], value, rtol=1e-5, atol=5e-5, err_msg=name)


def test_two_replicas_update_as_one(tmp_path):
    one, two = updates(tmp_path, "1,2", *PIXELS)
    before, after = (under(one, f"{update}/variables") for update in ("1", "2"))
    moved = [name for name in before if name.split("/")[0] in PARTS]
    assert moved and all(np.abs(after[name] - before[name]).max() > 1e-5 for name in moved)
    assert_same_updates(two, one)
    assert_skipped(two)


def assert_skipped(found):
    """The third update, in one part of whose batch a number is missing, was none."""
    before, after = (under(found, f"{update}/variables") for update in ("2", "3"))
    model = [name for name in before if name.startswith(("rssm", "encoder", "model_optimizer"))]
    assert model and found["3/metrics/skipped_updates"] == 1
    for name in model:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.long
def test_two_replicas_share_the_mean_image_and_the_steps_drawn(tmp_path):
    drawn = (
        "--model.standardize",
        "true",
        "--model.decode_steps",
        "2",
        "--objective.imagine_starts",
        "3",
    )
    one, two = updates(tmp_path, "1,2", *PIXELS, *drawn)
    assert_same_updates(two, one)


@pytest.mark.long
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_share_discrete_actions_and_joined_episodes(replicas, tmp_path):
    one, several = updates(tmp_path, f"1,{replicas}", *ENDING)
    assert_same_updates(several, one)


@pytest.mark.long
def test_the_free_nats_are_those_of_the_whole_batch(tmp_path):
    """One part's divergence is below them, the other's and the whole one's above."""
    flags = ("--variant", "dreamer", "--obs", "state")
    (kl,) = (found["1/metrics/kl"] for found in updates(tmp_path, "1", *flags))
    one, two = updates(tmp_path, "1,2", *flags, "--model.free_nats", str(0.9999 * kl))
    assert one["1/metrics/div"] == kl
    assert_same_updates(two, one)
