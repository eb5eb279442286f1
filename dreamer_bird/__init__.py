"""Dreamer, BIRD and Soft-BIRD: continuous control learned from pixels in imagination."""

__version__ = "0.1.0"
