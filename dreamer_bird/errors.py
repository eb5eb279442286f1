"""Errors that are the user's or the machine's business: told in one line, without a traceback."""

from collections.abc import Iterable
from difflib import SequenceMatcher

MOST_NAMES = 45  # that one line lists


class RunError(Exception):
    """A run that cannot start or go on; the message is one line that says what to do."""

    exit_status = 1


class DeviceMemoryError(RunError):
    """The memory of a device is too small; it may have shown within an update."""


class ConfigError(RunError, ValueError):
    """A flag, preset or configuration file that cannot be used."""

    exit_status = 2

    def __str__(self) -> str:
        """Return one line, whatever the user has typed."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class ResumeError(ConfigError):
    """A run that another configuration started, and that this one may not continue."""


class CheckpointError(RunError):
    """A checkpoint that is corrupt, incomplete or of another version."""


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Word the valid names closest to an unknown one, or all of a few; each behind ``prefix``."""

    def likeness(valid: str) -> float:
        # A dotted name is right in full, or in its last part alone: lr may mean model.lr.
        parts = (name, valid), (name.rpartition(".")[2], valid.rpartition(".")[2])
        return sum(SequenceMatcher(None, *pair).ratio() for pair in parts) / 2

    scores = {prefix + valid: likeness(valid) for valid in names}
    best = max(scores.values(), default=0)
    if best >= 0.5:
        close = [valid for valid in scores if scores[valid] > best - 0.1]
        *others, last = sorted(close, key=scores.get, reverse=True)[:3]
        return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
    if len(scores) <= MOST_NAMES:
        return f"choose from {', '.join(scores)}"
    if prefix == "--":
        return "--help-all lists the valid ones"
    few, more = [*scores][:MOST_NAMES], len(scores) - MOST_NAMES
    return f"choose from {', '.join(few)} and {more} more"
