"""The stages of a run, in this process, with an environment of random pixels."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from toy_envs import STEPS, nan_actions

from dreamer_bird.envs import environment
from dreamer_bird.envs.worker import EnvError, WorkerError
from dreamer_bird.errors import CheckpointError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.watchdog import DivergedError
from dreamer_bird.utils.signals import Stopped


def test_the_counters_decide_what_is_due(make_run):
    run = make_run(steps=96, **{"train.prefill": 2, "train.save_every": 48})

    def due(**counters):
        vars(run).update(counters)
        stage = run.next_stage()
        return stage and stage.__name__

    assert due(step=0, episodes=0, updates=0, next_eval=0, next_save=48) == "collect"
    assert due(step=24, episodes=1) == "collect"
    assert due(step=48, episodes=2, prefilled=48) == "update"
    assert due(updates=1) == "update"
    assert due(updates=2) == "evaluate"
    assert due(next_eval=1000) == "save"
    assert due(next_save=96, saved_step=48) == "collect"
    assert due(step=72, episodes=3) == "update"
    assert due(updates=4) == "collect"
    assert due(step=96, episodes=4, updates=6) == "evaluate"  # a run ends with an evaluation
    assert due(evaluated_step=96) == "save"
    assert due(next_save=144, saved_step=96) is None


def test_updates_come_by_environment_steps_where_episodes_are_short(make_run):
    """As an environment that ends its episodes early makes them."""
    run = make_run(**{"train.every": 100, "env.time_limit": 100})

    def blocks(step):
        vars(run).update(step=step, prefilled=30, updates=0, next_eval=10**6, next_save=10**6)
        while run.next_stage() == run.update:
            run.updates += run.config.train.updates
        return run.updates / run.config.train.updates

    assert [blocks(step) for step in (30, 50, 129, 130, 229, 230, 1030)] == [1, 1, 1, 2, 2, 3, 11]


def test_random_episodes_go_on_until_one_is_as_long_as_a_sequence(make_run):
    run = make_run(**{"replay.length": STEPS + 2, "env.time_limit": 100})
    for _ in range(3):
        run.collect()
    assert run.prefilled is None and run.next_stage() == run.collect
    run = make_run(folder="other", **{"replay.length": STEPS + 1, "env.time_limit": 100})
    run.collect()
    assert run.prefilled == run.step and run.next_stage() == run.update


def finished(run):
    while stage := run.next_stage():
        stage()
    return run


def test_several_environments_keep_the_schedule(make_run):
    """As many episodes and updates as with one, whatever the number divides."""
    one, three = (
        finished(make_run(folder=str(envs), envs=envs, steps=8 * 2 * STEPS, **{"train.prefill": 2}))
        for envs in (1, 3)
    )
    for run in (one, three):
        assert (run.episodes, run.step, run.prefilled) == (8, 8 * 2 * STEPS, 2 * 2 * STEPS)
        assert run.updates == (8 - 2 + 1) * 2
        assert len(set(run.replay.names)) == 8
    images = [[e["image"][0] for _, e in run.replay._episodes] for run in (one, three)]
    np.testing.assert_array_equal(*images)  # the same episodes of the environment


def test_several_environments_are_deterministic_and_each_has_noise_of_its_own(make_run):
    flags = {"envs": 2, "steps": 4 * 2 * STEPS, "train.prefill": 2, "actor.init_std": 0.5}
    one, two = (finished(make_run(folder=name, **flags)) for name in ("a", "b"))
    actions = [[e["action"][1:] for _, e in run.replay._episodes] for run in (one, two)]
    np.testing.assert_array_equal(*actions)
    assert not np.array_equal(actions[0][2], actions[0][3])
    weights = (run.agent.named_variables()["actor/hout/kernel"].numpy() for run in (one, two))
    np.testing.assert_array_equal(*weights)


def test_episodes_shorter_than_a_sequence_are_learned_from_where_they_can_end_early(make_run):
    flags = {"task": "gym_CartPole-v1", "replay.length": STEPS + 2, "env.time_limit": 100}
    run = make_run(**flags)
    run.collect()
    assert run.prefilled is None
    run.collect()
    assert run.prefilled == run.step
    run.update()
    assert run.updates == 2
    run.evaluate()  # whose predictions end with an episode: none is as long as a sequence
    lines = (run.logdir / "metrics.jsonl").read_text()
    assert "test/return" in lines and "model_error" not in lines


def test_random_episodes_go_on_until_there_are_steps_enough(make_run):
    run = make_run(**{"train.prefill": 2, "train.prefill_steps": 5 * 2 * STEPS - 1, "envs": 2})
    for episodes in (2, 4, 5):  # no more than are missing are played
        assert run.prefilled is None and run.next_stage() == run.collect
        run.collect()
        assert run.episodes == episodes
    assert run.prefilled == run.step == 5 * 2 * STEPS


def test_another_seed_differs_everywhere(make_run):
    """In weights, environments, random actions, the policy's actions and the replay's draws."""
    runs = [make_run(folder=f"run{seed}", seed=seed) for seed in (0, 1)]
    one, two = (run.agent.named_variables() for run in runs)
    kernels = [name for name in one if name.endswith("kernel") and "optimizer" not in name]
    assert len(kernels) > 20
    assert not any(np.array_equal(one[name], two[name]) for name in kernels)
    for episode in (0, 1):  # of random actions, of the policy
        for run in runs:
            run.collect()
        ours, theirs = (run.replay._episodes[episode][1] for run in runs)
        assert not np.array_equal(ours["image"][0], theirs["image"][0])
        assert not np.array_equal(ours["action"], theirs["action"])
        assert len(np.unique(ours["action"][1:])) > 2  # from step to step too, bounds aside
    batches = [run.evaluator._sample("video", run.step, 8)[0] for run in runs]
    assert not np.array_equal(batches[0]["image"], batches[1]["image"])


def test_actions_that_are_not_finite_are_counted_and_reach_nothing(make_run):
    run = make_run()
    run.collect()
    calls = nan_actions(run.agent, at={3, 4})
    run.collect()
    _, episode = run.replay._episodes[-1]
    assert np.isfinite(episode["action"]).all() and not episode["action"][3:5].any()
    assert all(calls)  # The policy began anew rather than from a state that is not a number.
    assert run.collector.player.state == [(0, ""), 2, 0]


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
    assert (run.episodes, run.collector.player.state) == (1, [(0, ""), 0, 0])


def test_a_failed_worker_is_restarted_as_often_as_set(make_run, tmp_path):
    run = make_run(**{"worker.restarts": 1})
    run.collect()
    (tmp_path / "fail").touch()
    with pytest.warns(UserWarning, match="'0'.*failed: ValueError: joint.*begins again"):
        run.collect()
    assert run.episodes == 2
    again = make_run(**{"worker.restarts": 0})
    (tmp_path / "fail").touch()
    with pytest.raises(WorkerError, match="joint out of range"):
        again.collect()


DRAWN = {
    "model.standardize": True,
    "model.decode_steps": 3,
    "objective.imagine_starts": 2,
    "actor.learning_starts": 3,
}


@pytest.mark.parametrize("flags", [{}, DRAWN], ids=["plain", "drawn"])
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
    again = make_run(**{**flags, "steps": run.step})
    assert again.updates == len(again.history) == 2
    assert again.history[0].keys() == run.history[0].keys()
    run.check = lambda: None
    run.update()
    again.update()
    for name, variable in run.agent.named_variables().items():
        np.testing.assert_array_equal(variable, again.agent.named_variables()[name], err_msg=name)
    # These were the last updates of the shorter run: they must be saved before it ends.
    again.next_eval, again.evaluated_step = again.step + 1, again.step
    assert again.next_stage() == again.save


def test_a_checkpoint_of_another_task_is_refused_by_name(make_run, tmp_path):
    make_run()
    with pytest.raises(CheckpointError, match="is of task dmc_cartpole_swingup, not dmc_cup_catch"):
        make_run(task="dmc_cup_catch")


def test_a_new_run_begins_with_a_checkpoint(make_run, tmp_path):
    make_run()
    (path,) = checkpoint.newest_first(tmp_path / "run" / "checkpoints")
    header = checkpoint.load_header(path)
    assert (header["step"], header["metrics_size"], header["replay"]) == (0, 0, [])


def test_what_state_and_action_decide_does_not_end_a_run_for_ever(tmp_path):
    """Each attempt draws other numbers, after a resume too: a run that fails comes to its end."""
    flags = ["--configs", "debug", "--task", "toy_envs:Cliff", "--obs", "state", "--steps", "120"]
    flags += ["--worker.restarts", "0", "--env.time_limit", "20", "--seed", "1", "--logdir"]
    flags.append(tmp_path / "run")
    statuses = []
    while 0 not in statuses and len(statuses) < 20:
        done = command(*flags, cwd=Path(__file__).parents[1] / "helpers")
        statuses.append(done.returncode)
        assert done.returncode == 0 or "ValueError: beyond the cliff" in done.stderr
    assert statuses[-1] == 0 and 1 in statuses


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
    assert run.collector.player.state == [(0, ""), 0, 0]
    failing = make_run(folder="other", make_env=cliff, **{"worker.restarts": 0})
    with pytest.raises(EnvError, match="beyond the cliff"):
        for _ in range(30):
            failing.collect()
    assert failing.collector.player.state == [(0, ""), 0, 1]
