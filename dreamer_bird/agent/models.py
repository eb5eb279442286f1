"""The classes of Dreamer's `models.py`, for code that was written against them."""

from dreamer_bird.agent.networks import ActionDecoder, ConvDecoder, ConvEncoder, DenseDecoder
from dreamer_bird.agent.rssm import RSSM

__all__ = ["RSSM", "ActionDecoder", "ConvDecoder", "ConvEncoder", "DenseDecoder"]
