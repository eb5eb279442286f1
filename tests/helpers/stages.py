"""The stages of a run in this process: which is due, and all of them to the end."""

import pytest

STAGES = ("collect", "update", "evaluate", "save")


class Begun(Exception):
    """A stage was begun, the name of which this holds."""


def next_stage(run):
    """Return the name of the stage that comes next, None at the end of the run; do none."""
    from dreamer_bird.training.train import learn

    def begin(name):
        def stage():
            raise Begun(name)

        return stage

    with pytest.MonkeyPatch.context() as patch:
        for name in STAGES:
            patch.setattr(run, name, begin(name))
        try:
            learn(run)
        except Begun as stage:
            return str(stage)
    return None


def finish(run):
    """Go on to the end of a run; return it."""
    from dreamer_bird.training.train import learn

    learn(run)
    return run
