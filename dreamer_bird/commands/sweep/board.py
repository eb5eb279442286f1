"""What a sweep shows: on a terminal a table that stays in place, elsewhere a line a change."""

import time
from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dreamer_bird.commands.sweep.plan import STATES, PlannedRun
from dreamer_bird.training.reporter import clock

REPORT = 60.0  # seconds between lines on all runs, where there is no table
REFRESH = 2.0  # seconds between readings of the logs, for the table
WIDTH = 100


class Board:
    """Shows runs while they go on; a context, at whose end comes the table of all."""

    def __init__(self, runs: Sequence[PlannedRun]):
        """Take all runs of the sweep, those that are done included."""
        self._runs = runs
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = WIDTH
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown = time.monotonic()

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self.summarize()

    def changed(self, run: PlannedRun) -> None:
        """Tell of a run's new state."""
        run.read_log()
        self._say(f"{run.name}: {run.state}{f': {run.reason}' * bool(run.reason)}")

    def tick(self) -> None:
        """Show how far the runs are, if that is due."""
        every = REFRESH if self._console.is_terminal else REPORT
        if time.monotonic() - self._shown < every:
            return
        self._shown = time.monotonic()
        for run in self._runs:
            if run.state == "running":
                run.read_log()
        if self._console.is_terminal:
            table = self._table(self._console.height - 6)
            self._live.update(Group(table, Text(self._totals())), refresh=True)
        else:
            self._say(self._totals())

    def summarize(self) -> None:
        """Print the table with all runs, and why some failed."""
        self._console.print(self._table())
        for run in self._runs:
            if run.state == "failed":
                self._say(f"{run.name} failed: {run.reason}")
        self._say(self._totals())

    def _table(self, room: int | None = None) -> Table:
        """Return a row for each run; of more than `room`, those that there is news of."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("run", "state", "step", "of", "fps", "return", "left"):
            justify = "left" if name in ("run", "state") else "right"
            table.add_column(name, justify=justify, no_wrap=True)
        runs = self._runs
        if room is not None and len(runs) > room:
            runs = sorted(runs, key=lambda run: run.state in ("done", "waiting"))[: max(1, room)]
        for run in runs:
            left = None if run.state == "done" else run.seconds_left()
            table.add_row(
                run.name,
                Text(run.state, STATES[run.state]),
                *(f"{run.step:,}", f"{run.config.steps:,}"),
                *(_number(run.fps), _number(run.last_return)),
                "" if left is None else clock(left),
            )
        return table

    def _totals(self) -> str:
        counts = Counter(run.state for run in self._runs)
        states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        steps = sum(run.step for run in self._runs)
        total = sum(run.config.steps for run in self._runs)
        speed = sum(run.fps or 0 for run in self._runs if run.state == "running")
        words = f"{len(self._runs)} run{'s' * (len(self._runs) != 1)}: {states}"
        words += f"; {steps:,} of {total:,} steps"
        return words + (f", {speed:.0f} a second" if speed else "")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"
