"""Episodes played beside updates: which policy plays them, and that a stop changes nothing."""

import json
from itertools import count

import numpy as np
from killing import TIMED

from dreamer_bird.signals import Stopped

OVERLAP = {"train.overlap": True, "actor.lr": 0.01}


def episode(run, number):
    """Return an episode that the replay holds, counted from 0."""
    return next(e for name, e in run.replay._episodes if int(name.split("-")[0]) == number + 1)


def test_episodes_are_of_the_policy_as_it_was_when_the_block_before_them_began(make_run):
    beside = make_run(**OVERLAP)
    for stage in (beside.collect, beside.update, beside.collect, beside.update, beside.collect):
        assert beside.next_stage() in (stage, beside.evaluate)
        stage()

    first = make_run(folder="first", **OVERLAP | {"train.overlap": False})
    first.collect()
    first.collect()  # before any update
    np.testing.assert_array_equal(episode(beside, 1)["action"], episode(first, 1)["action"])

    second = make_run(folder="second", **OVERLAP | {"train.overlap": False})
    second.collect()
    second.update()
    second.episodes = 2  # with the noise of the third
    second.collect()
    np.testing.assert_array_equal(episode(beside, 2)["action"], episode(second, 2)["action"])
    late = make_run(folder="late", **OVERLAP | {"train.overlap": False})
    late.collect()
    late.update()
    late.collect()
    assert not np.array_equal(episode(beside, 1)["action"], episode(late, 1)["action"])


def test_where_the_time_beside_updates_went_is_logged_apart(make_run):
    run = make_run(**OVERLAP)
    run.collect()
    run.update()
    (block,) = (line for line in lines(run) if "fps" in line)
    assert block["seconds_beside/act"] > 0 and block["seconds_beside/render"] > 0
    assert "seconds/act" in block and block["seconds/wait"] >= 0


def test_nothing_is_played_ahead_of_the_end(make_run):
    run = make_run(steps=2 * 24, **OVERLAP)
    finish(run)
    assert (run.step, run.episodes) == (48, 2)
    blocks = [line for line in lines(run) if "fps" in line]
    assert ["seconds_beside/act" in block for block in blocks] == [True, False]


def lines(run):
    return [json.loads(line) for line in (run.logdir / "metrics.jsonl").read_text().splitlines()]


def finish(run):
    while stage := run.next_stage():
        stage()
    return run


def left(run):
    """Return what a run leaves that must not depend on stops."""
    logged = [{k: v for k, v in line.items() if not k.startswith(TIMED)} for line in lines(run)]
    named = run.agent.named_variables() | run.collector.copied_weights
    weights = {name: variable.numpy().tobytes() for name, variable in named.items()}
    episodes = {name: {k: v.tobytes() for k, v in e.items()} for name, e in run.replay._episodes}
    return logged, weights, episodes


def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_is_not(make_run):
    """Stopped every so many agent steps and updates, in the thread that plays or the main one."""
    flags = {"steps": 6 * 24, "train.save_every": 24, "train.eval_every": 48, **OVERLAP}
    whole = left(finish(make_run(folder="whole", **flags)))
    for patience in count(27):  # more each time, or it would never end
        run = make_run(impatient(patience), folder="stopped", **flags)
        try:
            finish(run)
            break
        except Stopped:
            run.write_checkpoint()
            run.logger.close()
    assert patience >= 30
    assert left(run) == whole


def impatient(patience):
    """Return a check that stops the run the next time after so many."""
    calls = count()

    def check():
        if next(calls) >= patience:
            raise Stopped(15)

    return check
