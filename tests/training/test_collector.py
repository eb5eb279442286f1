"""Episodes in which an action or the environment fails, or that end early."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from toy_envs import STEPS, nan_actions

from dreamer_bird.envs.make import environment
from dreamer_bird.envs.worker import EnvError, WorkerError
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.watchdog import DivergedError
from dreamer_bird.utils.signals import Stopped


def test_actions_that_are_not_finite_are_counted_and_reach_nothing(make_run):
    run = make_run()
    run.collect()
    calls = nan_actions(run.agent, at={3, 4})
    run.collect()
    _, episode = run.replay._episodes[-1]
    assert np.isfinite(episode["action"]).all() and not episode["action"][3:5].any()
    assert all(calls)  # The policy began anew rather than from a state that is not a number.
    assert run.collector.to_save() == [(0, ""), 2, 0]


def test_too_many_such_actions_in_a_row_end_the_run(make_run):
    run = make_run(**{"train.max_skipped": 3})
    run.collect()
    nan_actions(run.agent, at={4, 5, 6})
    with pytest.raises(
        DivergedError, match=r"3 actions in a row .* the action at agent step 3 first"
    ):
        run.collect()
    assert run.episodes == 1


def test_an_episode_that_is_stopped_counts_nothing(make_run):
    steps = []

    def check():
        steps.append(None)
        if len(steps) == STEPS + 8:
            raise Stopped(15)

    run = make_run(check)
    run.collect()
    nan_actions(run.agent, at={2})
    with pytest.raises(Stopped):
        run.collect()
    assert (run.episodes, run.collector.to_save()) == (1, [(0, ""), 0, 0])


def test_a_failed_worker_is_restarted_as_often_as_set(make_run):
    run = make_run(**{"worker.restarts": 1})
    run.collect()
    make_run.failure.touch()
    with pytest.warns(UserWarning, match="'0'.*failed: ValueError: joint.*begins again"):
        run.collect()
    assert run.episodes == 2
    make_run.end(run)
    again = make_run(**{"worker.restarts": 0})
    make_run.failure.touch()
    with pytest.raises(WorkerError, match="joint out of range"):
        again.collect()


def test_what_state_and_action_decide_does_not_end_a_run_for_ever(make_run):
    """Each attempt draws other numbers, after a resume too: a run that fails comes to its end."""
    cliff = environment("toy_envs:Cliff", obs="state", time_limit=20)
    flags = {"worker.restarts": 0, "env.time_limit": 20, "seed": 1}
    failures, episodes = 0, 0
    while episodes < 6 and failures < 20:
        run = make_run(make_env=cliff, **flags)
        assert run.episodes == episodes
        try:
            while run.episodes < 6:
                run.collect()
        except EnvError as error:
            assert "ValueError: beyond the cliff" in str(error)
            failures += 1
        episodes = run.episodes
        run.write_checkpoint()
        make_run.end(run)
    assert episodes == 6 and 0 < failures < 20


def test_a_refusal_of_a_new_worker_is_an_attempt_too(make_run, tmp_path):
    """Or each start would draw the numbers that were refused."""
    refused = environment("toy_envs:Refused", obs="state")
    run = make_run(make_env=refused, **{"worker.restarts": 1, "env.action_repeat": 1})
    with (
        pytest.warns(UserWarning, match="outside of .*; episode 1 begins again"),
        pytest.raises(ConfigError, match="outside of"),
    ):
        run.collect()
    assert run.collector.to_save() == [(0, ""), 0, 2]
    flags = ["--configs", "debug", "--task", "toy_envs:Refused", "--obs", "state"]
    done = command(*flags, "--logdir", tmp_path / "new", cwd=Path(__file__).parents[1] / "helpers")
    assert done.returncode == 1 and "outside of" in done.stderr
    (path,) = (tmp_path / "new" / "checkpoints").iterdir()
    assert checkpoint.load_header(path)["collector"] == [[0, ""], 0, 2]  # saved at the end


def test_an_early_end_counts_the_environment_steps_that_were_played(make_run):
    """Ten, of three agent steps of four each."""
    ending = environment("toy_envs:Ending", obs="state", action_repeat=4)
    run = make_run(make_env=ending, **{"env.action_repeat": 4, "replay.length": 2})
    run.collect()
    _, episode = run.replay._episodes[0]
    assert (run.step, len(episode["reward"]) - 1, episode["reward"].sum()) == (10, 3, 10)
    assert "env_step" not in episode
    (line,) = map(json.loads, (run.logdir / "metrics.jsonl").read_text().splitlines())
    assert (line["step"], line["train/length"]) == (10, 3)


@pytest.mark.filterwarnings("ignore:.*beyond the cliff")
def test_a_retry_of_what_state_and_action_decide_draws_other_numbers(make_run):
    cliff = environment("toy_envs:Cliff", obs="state", time_limit=20)
    run = make_run(make_env=cliff, **{"worker.restarts": 20, "env.time_limit": 20})
    for _ in range(6):
        run.collect()
    assert run.collector.to_save() == [(0, ""), 0, 0]
    failing = make_run(folder="other", make_env=cliff, **{"worker.restarts": 0})
    with pytest.raises(EnvError, match="beyond the cliff"):
        for _ in range(30):
            failing.collect()
    assert failing.collector.to_save() == [(0, ""), 0, 1]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("raises", r"render\(\) raises ValueError: no light"),
        ("ends", "died: exit code 3"),
        ("nothing", r"render\(\) returns None instead of an image"),
    ],
)
def test_a_video_that_cannot_be_drawn_is_one_warning(make_run, harm, words):
    undrawn = environment("toy_envs:Undrawn", obs="state", kwargs=f"harm: {harm}")
    run = make_run(make_env=undrawn, **{"worker.restarts": 0, "env.action_repeat": 1})
    with pytest.warns(UserWarning, match=f"no images are rendered: .*{words}") as caught:
        for _ in range(2):
            run.evaluate()
    assert len(caught) == 1
    rows = list(map(json.loads, (run.logdir / "metrics.jsonl").read_text().splitlines()))
    assert [(row["test/return"], row["test/length"]) for row in rows] == [(10, 10), (10, 10)]
    assert not list(run.logdir.glob("videos/*"))
