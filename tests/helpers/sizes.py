"""Sizes of the tiny batches and agents in the fixtures."""

from dreamer_bird.envs.spaces import Spec

BATCH, LENGTH, ACTIONS = 2, 4, 2
SPEC = Spec({"image": (64, 64, 3)}, ACTIONS)
