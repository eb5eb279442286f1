"""The stages of a run, in this process, with an environment of random pixels."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from stages import finish, next_stage
from toy_envs import STEPS

from dreamer_bird.training import train


def test_the_counters_decide_what_is_due(make_run):
    run = make_run(steps=96, **{"train.prefill": 2, "train.save_every": 48})
    run.collect()  # so that there is something to draw from

    def due(**counters):
        vars(run).update(counters)
        return next_stage(run)

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
    run.collect()

    def blocks(step):
        vars(run).update(step=step, prefilled=30, updates=0, next_eval=10**6, next_save=10**6)
        while next_stage(run) == "update":
            run.updates += run.config.train.updates
        return run.updates / run.config.train.updates

    assert [blocks(step) for step in (30, 50, 129, 130, 229, 230, 1030)] == [1, 1, 1, 2, 2, 3, 11]


def test_random_episodes_go_on_until_one_is_as_long_as_a_sequence(make_run):
    run = make_run(**{"replay.length": STEPS + 2, "env.time_limit": 100})
    for _ in range(3):
        run.collect()
    assert run.prefilled is None and next_stage(run) == "collect"
    run = make_run(folder="other", **{"replay.length": STEPS + 1, "env.time_limit": 100})
    run.collect()
    assert run.prefilled == run.step and next_stage(run) == "update"


def test_several_environments_keep_the_schedule(make_run):
    """As many episodes and updates as with one, whatever the number divides."""
    flags = {"steps": 8 * 2 * STEPS, "train.prefill": 2}
    one, three = (
        make_run.end(finish(make_run(folder=str(envs), envs=envs, **flags))) for envs in (1, 3)
    )
    for run in (one, three):
        assert (run.episodes, run.step, run.prefilled) == (8, 8 * 2 * STEPS, 2 * 2 * STEPS)
        assert run.updates == (8 - 2 + 1) * 2
        assert len(set(run.replay.names)) == 8
    images = [[e["image"][0] for _, e in run.replay._episodes] for run in (one, three)]
    np.testing.assert_array_equal(*images)  # the same episodes of the environment


def test_episodes_are_as_many_at_once_as_their_usual_length_leaves_room_for(make_run):
    """A game of a minute has a limit of half an hour."""
    run = make_run(envs=3, steps=2000, **{"env.time_limit": 1000})
    vars(run).update(prefilled=100, step=1000, episodes=10)
    assert run._due_episodes() == 3
    vars(run).update(step=1800, episodes=18)
    assert run._due_episodes() == 2
    vars(run).update(step=1800, episodes=2)
    assert run._due_episodes() == 1


def test_several_environments_are_deterministic_and_each_has_noise_of_its_own(make_run):
    flags = {"envs": 2, "steps": 4 * 2 * STEPS, "train.prefill": 2, "actor.init_std": 0.5}
    actions, weights = [], []
    for folder in "ab":
        run = finish(make_run(folder=folder, **flags))
        actions.append([e["action"][1:] for _, e in run.replay._episodes])
        weights.append(run.agent.named_variables()["actor/hout/kernel"].numpy())
        make_run.end(run)
    np.testing.assert_array_equal(*actions)
    assert not np.array_equal(actions[0][2], actions[0][3])
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
        assert run.prefilled is None and next_stage(run) == "collect"
        run.collect()
        assert run.episodes == episodes
    assert run.prefilled == run.step == 5 * 2 * STEPS


def test_the_policy_explores_in_training_and_not_in_evaluations(make_run, monkeypatch):
    run = make_run()
    run.collect()  # at random
    act, explored = run.agent.act, []

    def record(obs, state, seed, training):
        explored.append(training)
        return act(obs, state, seed, training)

    monkeypatch.setattr(run.agent, "act", record)
    run.collect()
    assert explored == [True] * STEPS
    explored.clear()
    run.evaluate()
    assert explored == [False] * STEPS


def test_every_update_draws_sequences_and_noise_of_its_own(make_run, monkeypatch):
    run, seen = make_run(**{"train.updates": 4, "train.prefill": 2}), []
    run.collect()
    run.collect()

    def record(batch, seed):
        seen.append((batch["image"].numpy().tobytes(), tuple(seed)))
        return {"skipped_updates": tf.zeros([])}

    monkeypatch.setattr(run.agent, "train_step", record)
    run.update()
    batches, noise = zip(*seen, strict=True)
    assert len({*batches}) == len({*noise}) == 4


def test_every_episode_has_a_start_actions_and_noise_of_its_own(make_run, monkeypatch):
    run, noise = make_run(**{"train.prefill": 2}), []
    act = run.agent.act

    def record(obs, state, seed, training):
        noise.append(tuple(seed))
        return act(obs, state, seed, training)

    monkeypatch.setattr(run.agent, "act", record)
    for _ in range(4):
        run.collect()
    episodes = [episode for _, episode in run.replay._episodes]
    assert len({episode["image"][0].tobytes() for episode in episodes}) == 4
    assert len({episode["action"].tobytes() for episode in episodes[:2]}) == 2  # the random ones
    assert len({*noise}) == len(noise) == 2 * STEPS


def test_the_model_is_told_where_episodes_begin(make_run):
    """In sequences longer than any episode."""
    flags = {"task": "gym_CartPole-v1", "replay.length": STEPS + 2, "env.time_limit": 100}
    run = make_run(**flags)
    run.collect()
    run.collect()
    assert run._draw(0)["first"].numpy().any(1).all()


def test_the_replay_holds_so_many_environment_steps(make_run):
    run = make_run(**{"replay.capacity": 3 * 2 * STEPS, "env.action_repeat": 2})
    for _ in range(5):
        run.collect()
    assert [name.partition("-")[0] for name in run.replay.names] == ["000003", "000004", "000005"]


def test_an_action_that_is_no_number_changes_nothing_in_other_environments(make_run, monkeypatch):
    episodes = []
    for spoiled in (False, True):
        run = make_run(folder=f"{spoiled}", envs=2, **{"train.prefill": 2})
        run.collect()  # at random
        act, calls = run.agent.act, []

        def spoil(obs, state, seed, training, act=act, calls=calls, spoiled=spoiled):
            action, state = act(obs, state, seed, training)
            calls.append(state)
            if spoiled and len(calls) == 3:
                action = np.where([[True], [False]], np.nan, action)
            return action, state

        monkeypatch.setattr(run.agent, "act", spoil)
        run.collect()
        assert run.collector.nonfinite_actions == spoiled
        episodes.append([episode for _, episode in run.replay._episodes][-2:])
        make_run.end(run)
    (ours, other), (spoilt, same) = episodes
    for key, value in other.items():
        np.testing.assert_array_equal(same[key], value, err_msg=key)
    np.testing.assert_array_equal(spoilt["action"][:3], ours["action"][:3])
    assert not spoilt["action"][3].any() and ours["action"][3].any()
    assert np.any(spoilt["action"][4:] != ours["action"][4:])  # its state began anew


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
    batches = [run.diagnostics._sample("video", run.step, 8)[0] for run in runs]
    assert not np.array_equal(batches[0]["image"], batches[1]["image"])


def test_a_run_that_ends_before_it_learns_says_so_at_its_start(make_run):
    with pytest.warns(UserWarning, match="nothing will be learned"):
        make_run(steps=90, **{"train.prefill_steps": 100})
    with pytest.warns(UserWarning, match="nothing will be learned"):
        run = make_run(steps=2 * STEPS, folder="short", **{"train.prefill": 2, "envs": 2})
    run.collect()
    assert (run.episodes, run.finished) == (1, True)  # and no more than are asked for


def test_a_run_whose_episodes_are_lost_plays_others_before_it_goes_on(make_run):
    run = make_run()
    while run.prefilling:
        run.collect()
    run.updates += 1  # within a block
    run.write_checkpoint()
    make_run.end(run)
    for path in (run.logdir / "episodes").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="is missing; training goes on without it"):
        run = make_run()
    assert run.updates == 1 and next_stage(run) != "update"
    run.collect()
    assert next_stage(run) == "update"


@pytest.fixture
def reads(monkeypatch):
    """A list that grows by one with each tensor whose numbers Python asks for."""
    kind = next(each for each in type(tf.zeros([])).__mro__ if "_numpy" in vars(each))
    found, original = [], kind._numpy
    monkeypatch.setattr(kind, "_numpy", lambda tensor: found.append(1) or original(tensor))
    return found


def test_nothing_of_a_block_is_read_before_its_end(make_run, reads):
    """But the counter for when the actor learns: at the first update and when it may begin."""
    settings = {"train.updates": 5, "actor.learning_starts": 3, "obs": "pixels"}
    run = make_run(**settings)
    run.collect()
    reads.clear()
    run._run_updates()
    assert run.updates == 5 and len(reads) == 2
    assert [row["actor_grad_norm"] > 0 for row in run.history] == [False] * 3 + [True] * 2
    reads.clear()
    assert len(run.history_columns()) == len(reads) == len(run.history[0])


def test_a_batch_is_on_the_device_as_bytes(make_run, monkeypatch):
    run = make_run()
    run.collect()
    asked, original = [], tf.device
    monkeypatch.setattr(tf, "device", lambda name: asked.append(name) or original(name))
    monkeypatch.setattr(train, "first_device", lambda: "GPU:0")
    assert run._draw(0)["image"].dtype == tf.uint8
    monkeypatch.setattr(run.team, "strategy", SimpleNamespace(num_replicas_in_sync=2))
    run._draw(0)  # of which each replica's part alone is to travel
    assert asked == ["GPU:0", "CPU:0"]


def test_a_compiled_update_tells_its_time_each_time_that_it_is_traced(make_run, monkeypatch):
    run, told = make_run(), []
    traces = iter([0, 1, 1, 1, 1, 2])
    monkeypatch.setattr(type(run.agent), "traces", property(lambda agent: next(traces)))
    monkeypatch.setattr(run.agent, "compiled", True)
    monkeypatch.setattr(run.agent, "train_step", lambda batch, seed: {})
    monkeypatch.setattr(run.logger, "say", told.append)
    for _ in range(3):
        run._update_by({})
    first, *compiled = told
    assert first == "XLA compiles the update: on a GPU that takes minutes"
    assert len(compiled) == 2
    assert all(re.fullmatch(r"XLA compiled the update in \d+\.\d s", line) for line in compiled)
