"""Comparisons of runs from their logs; nothing here needs TensorFlow."""
