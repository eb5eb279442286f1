"""A run: what collects, learns, evaluates, logs and saves."""
