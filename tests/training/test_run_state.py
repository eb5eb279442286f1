"""What a checkpoint holds of a run, and a run that goes on from it."""

import numpy as np
import pytest
import tensorflow as tf
from stages import next_stage

from dreamer_bird.errors import CheckpointError
from dreamer_bird.training import checkpoint
from dreamer_bird.utils.signals import Stopped

DRAWN = {
    "model.standardize": True,
    "model.decode_steps": 3,
    "objective.imagine_starts": 2,
    "actor.learning_starts": 3,
}


PLANNED = {"variant": "planet", "envs": 2}


@pytest.mark.parametrize("flags", [{}, DRAWN, PLANNED], ids=["plain", "drawn", "planned"])
def test_a_block_of_updates_goes_on_where_it_was_stopped(make_run, flags):
    flags = {"train.updates": 5, **flags}
    run = make_run(**flags)
    run.collect()
    calls = []

    def check():
        calls.append(None)
        if len(calls) == 3:
            raise Stopped(2)

    run.check = check
    with pytest.raises(Stopped):
        run.update()
    run.write_checkpoint()
    keys = run.history[0].keys()
    run.check = lambda: None
    run.update()
    weights = {name: variable.numpy() for name, variable in run.agent.named_variables().items()}
    make_run.end(run)
    again = make_run(**{**flags, "steps": run.step})
    assert again.updates == len(again.history) == 2
    assert again.history[0].keys() == keys
    again.update()
    assert again.agent.named_variables().keys() == weights.keys()
    for name, variable in again.agent.named_variables().items():
        np.testing.assert_array_equal(variable, weights[name], err_msg=name)
    # These were the last updates of the shorter run: they must be saved before it ends.
    again.next_eval, again.evaluated_step = again.step + 1, again.step
    assert next_stage(again) == "save"


@pytest.mark.parametrize(
    ("before", "after", "scale"), [("float32", "float16", 2**15), ("float16", "float32", 1)]
)
def test_another_precision_goes_on_with_the_weights_and_a_loss_scale_of_its_own(
    make_run, before, after, scale
):
    run = make_run(precision=before)
    weights = {}
    for name, variable in run.agent.named_variables().items():
        if not name.endswith(("loss_scale", "count")):
            variable.assign_add(tf.ones_like(variable))  # no new run begins with these
        weights[name] = variable.numpy()
    run.write_checkpoint()
    make_run.end(run)
    again = make_run(precision=after).agent.named_variables()
    assert again.keys() == weights.keys()
    for name, variable in again.items():
        expected = scale if name.endswith("loss_scale") else weights[name]
        np.testing.assert_array_equal(variable, expected, err_msg=name)


def test_what_is_due_earlier_now_and_what_failed_in_a_row_reach_the_next_process(make_run):
    run = make_run(**{"train.eval_every": 5000, "train.save_every": 5000})
    run.collect()
    run.next_eval = 5000
    streaks = run.bad_updates, run.collector._bad_actions, run.diagnostics.collector._bad_actions
    for number, streak in enumerate(streaks):
        for _ in range(number + 1):
            streak.count(f"quantity {number}")
    run.write_checkpoint()
    make_run.end(run)
    again = make_run(**{"train.eval_every": 50, "train.save_every": 30})
    assert again.step == run.step == 24
    assert (again.next_eval, again.next_save) == (50, 30)
    streaks = (
        *(again.bad_updates, again.collector._bad_actions),
        again.diagnostics.collector._bad_actions,
    )
    told = [(streak.length, streak.first) for streak in streaks]
    assert told == [(1, "quantity 0"), (2, "quantity 1"), (3, "quantity 2")]


def test_a_checkpoint_of_another_task_is_refused_by_name(make_run, tmp_path):
    make_run.end(make_run())
    with pytest.raises(CheckpointError, match="is of task dmc_cartpole_swingup, not dmc_cup_catch"):
        make_run(task="dmc_cup_catch")


def test_a_new_run_begins_with_a_checkpoint(make_run, tmp_path):
    make_run()
    (path,) = checkpoint.newest_first(tmp_path / "run" / "checkpoints")
    header = checkpoint.load_header(path)
    assert (header["step"], header["metrics_size"], header["replay"]) == (0, 0, [])
