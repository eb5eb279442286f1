"""Episodes played beside updates: which policy plays them, and that a stop changes nothing."""

import json
from itertools import count
from threading import Event, current_thread, main_thread
from types import SimpleNamespace

import numpy as np
import pytest
from killing import TIMED
from stages import finish, next_stage
from toy_envs import nan_actions

from dreamer_bird.envs.worker import WorkerError
from dreamer_bird.errors import RunError
from dreamer_bird.training.collector import OverlappingCollector
from dreamer_bird.utils.signals import Stopped
from dreamer_bird.utils.timer import Stopwatch

OVERLAP = {"train.overlap": True, "actor.lr": 0.01}


def episode(run, number):
    """Return an episode that the replay holds, counted from 0."""
    return next(e for name, e in run.replay._episodes if int(name.split("-")[0]) == number + 1)


def test_episodes_are_of_the_policy_as_it_was_when_the_block_before_them_began(make_run):
    beside = make_run(**OVERLAP)
    for stage in ("collect", "update", "collect", "update", "collect"):
        assert next_stage(beside) in (stage, "evaluate")
        getattr(beside, stage)()
    make_run.end(beside)

    first = make_run(folder="first", **OVERLAP | {"train.overlap": False})
    first.collect()
    first.collect()  # before any update
    make_run.end(first)
    np.testing.assert_array_equal(episode(beside, 1)["action"], episode(first, 1)["action"])

    second = make_run(folder="second", **OVERLAP | {"train.overlap": False})
    second.collect()
    second.update()
    second.episodes = 2  # with the noise of the third
    second.collect()
    make_run.end(second)
    np.testing.assert_array_equal(episode(beside, 2)["action"], episode(second, 2)["action"])
    late = make_run(folder="late", **OVERLAP | {"train.overlap": False})
    late.collect()
    late.update()
    late.collect()
    assert not np.array_equal(episode(beside, 1)["action"], episode(late, 1)["action"])


def test_where_the_time_beside_updates_went_is_logged_apart_with_the_block_after(make_run):
    run = finish(make_run(steps=3 * 24, **OVERLAP))
    blocks = [line for line in lines(run) if "model_loss" in line]
    assert ["seconds_beside/act" in block for block in blocks] == [False, True, True]
    for block in blocks[1:]:
        assert block["seconds_beside/act"] > 0 and block["seconds_beside/render"] > 0
        assert "seconds/act" not in block and block["seconds/wait"] >= 0


@pytest.mark.parametrize("compiled", [True, False])
def test_the_copy_is_compiled_where_the_agent_is(make_agent, compiled):
    agent = make_agent(xla="true")
    agent.compiled = compiled
    envs = [SimpleNamespace(spec=agent._spec)]
    collector = OverlappingCollector(agent._config, agent, envs, lambda: None, Stopwatch())
    assert collector._agent.compiled is compiled


def test_all_episodes_between_two_blocks_are_of_the_same_policy(make_run):
    """The first is played beside the block before them, the others when they are due."""
    flags = OVERLAP | {"train.every": 72, "steps": 1000}
    beside, plain = (
        make_run(folder=str(overlap), **flags | {"train.overlap": overlap})
        for overlap in (True, False)
    )
    for stage in (beside.collect, beside.update, beside.collect, beside.collect):
        stage()
    plain.collect()
    for number in (1, 2):  # before any update
        plain.collect()
        ours, theirs = (episode(run, number)["action"] for run in (beside, plain))
        np.testing.assert_array_equal(ours, theirs)


def test_an_episode_goes_on_beside_several_blocks(make_run):
    run = make_run(**OVERLAP, **{"train.every": 10})
    run.collect()
    run.update()
    run.collect()
    before = run.collector.copied_for
    run.update()
    ahead = run.collector._ahead
    run.update()
    assert next_stage(run) != "update" and run.collector._ahead is ahead
    assert before == 1 and run.collector.copied_for == 2


def test_a_run_that_is_extended_goes_on_as_if_it_had_been_longer(make_run):
    flags = {"train.save_every": 24, "train.eval_every": 10**6, **OVERLAP}
    make_run.end(finish(make_run(folder="short", steps=48, **flags)))
    extended, longer = (finished(make_run, folder=f, steps=72, **flags) for f in ("short", "long"))
    assert extended[1:] == longer[1:]


def test_several_environments_play_ahead(make_run):
    one, two = (finished(make_run, folder=f, envs=2, steps=5 * 24, **OVERLAP) for f in "ab")
    assert len(one[2]) == 5
    assert one[1:] == two[1:]


def test_a_checkpoint_without_a_copy_as_import_writes_them_has_the_policy_itself_play(make_run):
    run = make_run(**OVERLAP)
    run.collect()
    run.update()
    run.collector.restore_copy({}, None)
    learned = run.agent.named_variables()
    for name, copy in run.collector.copied_weights.items():
        np.testing.assert_array_equal(copy.numpy(), learned[name].numpy())


def test_what_goes_wrong_in_the_thread_is_counted_and_mended_as_ever(make_run):
    run = make_run(**OVERLAP)
    run.collect()
    nan_actions(run.collector._agent, at={8})  # when the episode has begun again
    make_run.failure.touch()
    with pytest.warns(UserWarning, match="joint out of range.*begins again"):
        run.update()
        run.collect()
    assert run.episodes == 2 and not make_run.failure.exists()
    assert run.collector.to_save() == [(0, ""), 1, 0]
    run.update()
    (block,) = [line for line in lines(run) if line.get("nonfinite_actions")]
    assert block["step"] == run.step and run.collector.nonfinite_actions == 0


def test_an_error_in_the_thread_comes_up_where_the_episode_is_needed(make_run):
    run = make_run(**OVERLAP, **{"worker.restarts": 0})
    run.collect()
    make_run.failure.touch()
    run.update()
    with pytest.raises(WorkerError, match="joint out of range"):
        run.collect()
    assert run.episodes == 1 and run.collector.to_save() == [(0, ""), 0, 1]


def test_a_run_that_ends_early_does_not_wait_for_the_episode(make_run):
    """As when another host is gone: nothing in this process says stop."""
    begun, go_on = Event(), Event()

    def check():
        if current_thread() is not main_thread():
            begun.set()
            go_on.wait(60)

    run = make_run(check, **OVERLAP)
    run.collect()
    run.collector.play_ahead(1, 1)
    assert begun.wait(30)
    run.collector.close()
    go_on.set()
    with pytest.raises(RunError, match="the run has ended"):
        run.collect()


def lines(run):
    return [json.loads(line) for line in (run.logdir / "metrics.jsonl").read_text().splitlines()]


def left(run):
    """Return what a run leaves that must not depend on stops."""
    logged = [{k: v for k, v in line.items() if not k.startswith(TIMED)} for line in lines(run)]
    named = run.agent.named_variables() | run.collector.copied_weights
    weights = {name: variable.numpy().tobytes() for name, variable in named.items()}
    episodes = {name: {k: v.tobytes() for k, v in e.items()} for name, e in run.replay._episodes}
    return logged, weights, episodes


def finished(make_run, **flags):
    """Return what a run leaves that goes on to its end."""
    run = finish(make_run(**flags))
    found = left(run)
    make_run.end(run)
    return found


@pytest.mark.parametrize("variant", ["bird", pytest.param("planet", marks=pytest.mark.long)])
def test_a_run_that_is_stopped_again_and_again_ends_as_one_that_is_not(make_run, variant):
    """Stopped every so many agent steps and updates, in the thread that plays or the main one."""
    flags = {"steps": 6 * 24, "train.save_every": 24, "train.eval_every": 48, **OVERLAP}
    flags["variant"] = variant
    whole = finished(make_run, folder="whole", **flags)
    for patience in count(27):  # more each time, or it would never end
        run = make_run(impatient(patience), folder="stopped", **flags)
        try:
            finish(run)
            break
        except Stopped:
            run.write_checkpoint()
            make_run.end(run)
    assert patience >= 30
    assert left(run) == whole


def impatient(patience):
    """Return a check that stops the run the next time after so many."""
    calls = count()

    def check():
        if next(calls) >= patience:
            raise Stopped(15)

    return check
