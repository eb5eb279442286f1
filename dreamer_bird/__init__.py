"""Dreamer, BIRD and Soft-BIRD: control learned in imagination, from pixels or state."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["load", "main", "register"]
_HOMES = {"load": "policy", "main": "cli", "register": "envs.custom"}


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first asked for, so that importing it is cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
