"""Environments by name. Importing this package is cheap: it imports no simulator."""
