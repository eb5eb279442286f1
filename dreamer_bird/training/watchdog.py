"""Numbers that are not finite: counted, kept out of everything, and in the end a reason to stop."""

from collections.abc import Mapping, Sequence

import numpy as np

from dreamer_bird.errors import RunError


class DivergedError(RunError):
    """Too many updates or actions in a row were not finite."""


class Streak:
    """Consecutive updates or actions that were not finite."""

    def __init__(self, of: str, limit: int):
        """Take what is counted, for the message, and how many in a row end the run."""
        self._of, self._limit = of, limit
        self.length, self.first = 0, ""

    def to_save(self) -> tuple[int, str]:
        """Return what a checkpoint keeps."""
        return self.length, self.first

    def restore(self, saved: Sequence) -> None:
        """Go on from what `to_save` returned."""
        self.length, self.first = saved

    def count(self, culprit: str | None) -> None:
        """Note the quantity that was not finite in one of them, None if all were.

        Raises DivergedError that names the quantity with which the streak began.
        """
        self.first = (self.first or culprit) if culprit else ""
        self.length = self.length + 1 if culprit else 0
        if self.length >= self._limit:
            raise DivergedError(
                f"training diverged: {self.length} {self._of} in a row were not finite and not "
                f"used, {self.first} first; the last checkpoint is intact, and if it is of half "
                "precision, --precision float32 may go on from it; else try a smaller --model.lr "
                "in a new --logdir"
            )


def culprit(metrics: Mapping[str, float]) -> str | None:
    """Return the first of an update's metrics, in the order of their computation, not finite."""
    return next((key for key, value in metrics.items() if not np.isfinite(value)), None)
