"""Sizes of the tiny batches and agents in the fixtures."""

BATCH, LENGTH, ACTIONS = 2, 4, 2
