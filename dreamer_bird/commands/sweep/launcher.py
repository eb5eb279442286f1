"""Runs as tasks of Ray: queued, watched, tried again when they fail, and stopped together."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from dreamer_bird.commands.sweep import node
from dreamer_bird.commands.sweep.board import Board
from dreamer_bird.commands.sweep.machines import Share, first_line
from dreamer_bird.commands.sweep.plan import PlannedRun
from dreamer_bird.errors import RunError
from dreamer_bird.utils.signals import Stopped

TICK = 1.0  # seconds between looks at the runs
ENDING = 15.0  # seconds within which a run that is told to stop has ended
TOLD_TO_STOP = (129, 130, 143, -1, -2, -15)  # by signals; negative where they came early
BAD_SETTINGS = 2


class Launcher:
    """The runs that are queued or going on."""

    def __init__(self, ray: ModuleType, share: Share, retries: int, board: Board):
        """Take Ray, what each run gets, and how often a run that fails is tried again."""
        self._ray, self._share, self._retries, self._board = ray, share, retries, board
        self._task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(node.train)
        self._pending: dict[object, PlannedRun] = {}
        self._later: dict[PlannedRun, float] = {}  # with the time from which each may go on
        self._sizes: dict[PlannedRun, int] = {}  # of logs before the task writes in them

    def train(self, runs: Sequence[PlannedRun], check: Callable[[], None]) -> None:
        """Train runs until each is done or has failed, and set their states as they change.

        `check` may raise Stopped: then all save and end first. Raises RunError if Ray fails.
        """
        try:
            for run in runs:
                self._submit(run)
            while self._pending or self._later:
                check()
                for run in [run for run, due in self._later.items() if due <= time.monotonic()]:
                    del self._later[run]
                    self._submit(run)
                for task in self._ended():
                    self._settle(task, self._pending.pop(task))
                # What no longer waits writes in its log.
                for run in self._pending.values():
                    if run.state in ("waiting", "retrying") and _size(run.log) > self._sizes[run]:
                        self._change(run, "running")
                self._board.tick()
        except Stopped:
            self._stop()
            raise
        except self._ray.exceptions.RayError as error:
            reason = f"Ray failed, and the runs are told to save: {first_line(error)}"
            raise RunError(reason) from None

    def _submit(self, run: PlannedRun) -> None:
        command = [Path(sys.argv[0]).name, *run.flags]
        self._sizes[run] = _size(run.log)
        task = self._task.remote(command, os.getcwd(), str(run.log), self._share)
        self._pending[task] = run

    def _ended(self) -> list[object]:
        """Wait a moment; return the tasks that have ended."""
        if self._pending:
            return self._ray.wait(list(self._pending), timeout=TICK)[0]
        time.sleep(TICK)
        return []

    def _settle(self, task: object, run: PlannedRun) -> None:
        """Take over how a task has ended, and try its run again if it failed."""
        pause = 0.0
        try:
            status, reason = self._ray.get(task)
        except self._ray.exceptions.RayError as error:  # the node or Ray's process is lost
            # If the run still lives, it learns that from its standard input, saves and ends.
            status, reason, pause = 1, f"{type(error).__name__}: {first_line(error)}", ENDING
        if status == BAD_SETTINGS:  # after a failure: the lost try still holds the logdir
            pause = ENDING
        if status == 0:
            self._change(run, "done")
        elif status in TOLD_TO_STOP:
            self._change(run, "stopped", reason)
        elif (status == BAD_SETTINGS and not run.failures) or run.failures == self._retries:
            self._change(run, "failed", f"{reason}; see {run.log}")
        else:
            run.failures += 1
            self._change(run, "retrying", f"{run.failures} of {self._retries}, {reason}")
            self._later[run] = time.monotonic() + pause

    def _stop(self) -> None:
        """Have all runs save and end, and wait until they have."""
        for task in self._pending:
            self._ray.cancel(task)
        if tasks := list(self._pending):
            self._ray.wait(tasks, num_returns=len(tasks), timeout=ENDING)
        for run in (*self._pending.values(), *self._later):
            if run.state != "waiting":
                self._change(run, "done" if run.is_complete() else "stopped")

    def _change(self, run: PlannedRun, state: str, reason: str = "") -> None:
        run.state, run.reason = state, reason
        self._board.changed(run)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
