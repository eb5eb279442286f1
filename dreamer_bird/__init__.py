"""Dreamer, BIRD and Soft-BIRD: control learned in imagination, from pixels or state."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load", "main", "register"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first asked for, so that importing it is cheap."""
    if name == "load":
        from dreamer_bird.policy import load as found
    elif name == "main":
        from dreamer_bird.cli import main as found
    elif name == "register":
        from dreamer_bird.envs.custom import register as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
