"""The command `evaluate`, on a real run and on an agent and an environment that keep notes."""

import json
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from command_line import ROOT, command, python

from dreamer_bird.cli import main
from dreamer_bird.commands import evaluate
from dreamer_bird.config import Config, load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.snapshot import (
    build_agent,
    check_environment,
    film,
    play,
    read_snapshot,
)

TASK = "dmc_cartpole_balance"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with one checkpoint, of the weights it began with."""
    logdir = tmp_path_factory.mktemp("evaluate") / "run"
    flags = ["--configs", "debug", "--task", TASK, "--steps", "60", "--precision", "float32"]
    result = command(*flags, "--env.time_limit", "60", "--logdir", logdir)
    assert result.returncode == 0, result.stderr
    for older in checkpoint.newest_first(logdir / "checkpoints")[1:]:
        older.unlink()
    return logdir


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(run, tmp_path / "copy")


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
    """What the command prints about two episodes, and the video it wrote."""
    video, before = tmp_path_factory.mktemp("video") / "new" / "folder" / "out.mp4", contents(run)
    result = command("evaluate", "--logdir", run, "--episodes", 2, "--json", "--video", video)
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(run) == before
    return json.loads(result.stdout, parse_constant=refuse), video


def test_the_policy_that_is_shipped_holds_the_pole_up():
    logdir = ROOT / "examples" / "bird-cartpole_swingup"
    told = command("evaluate", "--logdir", logdir, "--episodes", 1, "--json")
    # Ten episodes had 764 with a deviation of 37; a random policy has about 30.
    assert json.loads(told.stdout.splitlines()[-1])["mean"] > 500, told.stderr


def test_it_prints_one_json_object(run, evaluated):
    found, _ = evaluated
    first, second = found["returns"]
    assert first != second and 0 < min(first, second) < max(first, second) <= 60
    assert found["mean"] == pytest.approx((first + second) / 2)
    assert found["std"] == pytest.approx(abs(first - second) / 2)
    identity = {"task": TASK, "variant": "bird", "step": 60, "run_seed": 0, "seed": 0}
    assert found.items() >= {**identity, "precision": "float32", "logdir": str(run)}.items()


def test_it_writes_a_video_of_all_episodes(evaluated):
    _, video = evaluated
    assert list(video.parent.iterdir()) == [video]
    frames = imageio.imread(video)
    assert frames.shape == (2 * 31, 256, 256, 3) and frames.std() > 10


def test_a_seed_gives_the_same_returns_in_every_call(run, evaluated, capsys):
    def returns(*flags):
        assert main(["evaluate", "--logdir", str(run), "--json", "--episodes", "1", *flags]) == 0
        return json.loads(capsys.readouterr().out)["returns"]

    returned = evaluated[0]["returns"]
    assert returns() == returned[:1]
    assert returns("--seed", "1")[0] not in returned


def test_plans_are_beside_the_policy_from_the_same_seeds(run, capsys, monkeypatch):
    """What the policy earns stays the same, and each kind of plan earns something else."""
    played, play, found = [], evaluate.play, {}
    monkeypatch.setattr(
        evaluate, "play", lambda *a, **k: played.append(play(*a, **k)) or played[-1]
    )
    before = contents(run)
    for planner in ("cem", "cem-value"):
        flags = ["--planner", planner, "--episodes", "1", "--json"]
        assert main(["evaluate", "--logdir", str(run), *flags]) == 0
        found[planner] = json.loads(capsys.readouterr().out)
        assert found[planner]["planner"] == planner
    assert contents(run) == before
    totals = [float(episode["reward"].sum()) for episode in played]
    assert [found["cem"]["returns"], found["cem"]["planned"]["returns"]] == [
        totals[:1],
        totals[1:2],
    ]
    assert found["cem-value"]["planned"]["mean"] == totals[3]
    assert totals[0] == totals[2] and len({*totals}) == 3
    for episode in played[1:]:
        np.testing.assert_array_equal(episode["image"][0], played[0]["image"][0])


def test_the_return_is_that_of_the_episodes_shown(run, tmp_path, capsys, monkeypatch):
    played = []
    play = evaluate.play
    monkeypatch.setattr(
        evaluate, "play", lambda *a, **k: played.append(play(*a, **k)) or played[-1]
    )
    gif = tmp_path / "out.gif"
    assert main(["evaluate", "--logdir", str(run), "--episodes", "1", "--video", str(gif)]) == 0
    total = f"return {played[0]['reward'].astype(float).sum():.1f}"
    assert capsys.readouterr().out.splitlines() == [
        f"bird on {TASK}, seed 0, at step 60",
        f"episode 1: {total}",
        f"{total}, standard deviation 0.0, of 1 episodes",
        str(gif),
    ]
    frames = imageio.imread(gif, index=None)
    assert frames.shape == (len(played[0]["image"]), 256, 256, 3)
    # Drawn anew, finer than what the agent saw.
    small = frames.reshape(-1, 64, 4, 64, 4, 3).mean((2, 4))
    assert np.abs(small - played[0]["image"]).mean() < 10
    assert (frames[:, ::4] != frames[:, 1::4]).any()


class Replayed:
    """An environment whose rewards are those given, whatever is done."""

    def __init__(self, rewards):
        self.rewards, self.taken, self.seeds = list(rewards), [], []

    def reset(self, seed):
        self.seeds.append(seed)

    def step(self, action):
        self.taken.append(action)
        ends = len(self.taken) == len(self.rewards)
        return {}, self.rewards[len(self.taken) - 1], False, ends

    def render(self):
        return np.full((2, 2, 3), len(self.taken), np.uint8)


def test_an_episode_is_filmed_by_its_actions_and_another_one_is_told():
    episode = {"action": np.arange(4.0)[:, None], "reward": np.float32([0, 1, 2, 3])}
    env = Replayed([1, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = film(env, 7, 0, episode)
    assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(env.taken, episode["action"][1:])
    for rewards in ([1, 2, 4], [1, 2]):
        with pytest.warns(UserWarning, match="one seed gives different ones"):
            film(Replayed(rewards), 7, 0, episode)


def test_the_agent_has_the_weights_of_the_checkpoint(run):
    arrays, _ = checkpoint.load(checkpoint.newest_first(run / "checkpoints")[0])
    snapshot = read_snapshot(run)
    weights = [name for name in snapshot.arrays if name.startswith(("encoder/", "actor/"))]
    moved = {name: snapshot.arrays[name] + 1 for name in weights}
    snapshot = snapshot._replace(arrays=snapshot.arrays | moved)
    variables = build_agent(snapshot).named_variables()
    for name in weights:
        np.testing.assert_array_equal(variables[name], arrays[name] + 1)


class NotingAgent:
    """Acts by the seeds it is given, and keeps what it was called with."""

    def __init__(self):
        self.calls = []

    def act(self, obs, state, seed, training):
        state = -1 if state is None else state
        self.calls.append((int(obs["image"][0, 0, 0, 0]), state, tuple(seed), training))
        return np.array([[seed[0] / 2**31]], np.float32), state + 1


class CountingEnv:
    """Counts the agent steps of an episode of three in its images."""

    spec = Spec({"image": (2, 2, 3)}, actions=1)

    env_step = 0

    def reset_async(self, seed):
        self.seed, self.t = seed, 0

    def reset_wait(self):
        return {"image": np.full((2, 2, 3), self.t, np.uint8)}

    def step_async(self, action):
        self.t, self.action = self.t + 1, action

    def step_wait(self):
        return self.reset_wait(), float(self.action[0]), False, self.t == 3


def test_play_acts_without_exploration_on_states_and_seeds_of_its_own():
    agent, env = NotingAgent(), CountingEnv()
    episode = play(agent, env, seed=5, number=1)
    assert [call[:2] for call in agent.calls] == [(0, -1), (1, 0), (2, 1)]
    assert {call[3] for call in agent.calls} == {False}
    seeds = [call[2] for call in agent.calls]
    assert len(set(seeds)) == 3
    expected = np.array([0, *(seed[0] / 2**31 for seed in seeds)], np.float32)
    np.testing.assert_array_equal(episode["reward"], expected)
    starts = [env.seed]
    for seed, number in ((5, 1), (5, 2), (6, 1)):
        play(agent, env, seed, number)
        starts.append(env.seed)
    assert starts[0] == starts[1] and len(set(starts)) == 3
    assert agent.calls[3:6] == agent.calls[:3]
    assert not {call[2] for call in agent.calls[6:]} & set(seeds)


def test_a_damaged_checkpoint_is_passed_over_and_stays_where_it_is(copied):
    older = checkpoint.newest_first(copied / "checkpoints")[0]
    newer = older.with_name("0000000999.npz")  # of a disk that was full, say
    newer.write_bytes(older.read_bytes()[:1000])
    before = contents(copied)
    with pytest.warns(UserWarning, match=f"{newer} cannot be read .*; trying the one before"):
        assert read_snapshot(copied).step == 60
    assert contents(copied) == before
    older.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="no checkpoint that can be"):
        read_snapshot(copied)


def test_a_checkpoint_that_vanishes_while_the_run_goes_on(copied, monkeypatch, recwarn):
    """The run writes two more and removes this one, between the listing and the reading."""
    folder, load = copied / "checkpoints", checkpoint.load
    (old,) = checkpoint.newest_first(folder)

    def slow_load(path):
        if path == old:
            arrays, header = load(path)
            for step in (1000, 2000):
                checkpoint.save(folder, step, arrays, {**header, "step": step}, keep=2)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", slow_load)
    assert read_snapshot(copied).step == 2000
    assert not old.exists() and not list(recwarn)


def test_an_older_checkpoint_by_name(copied):
    folder = copied / "checkpoints"
    (old,) = checkpoint.newest_first(folder)
    arrays, header = checkpoint.load(old)
    checkpoint.save(folder, 1000, arrays, {**header, "step": 1000}, keep=2)
    assert read_snapshot(copied).step == 1000
    assert read_snapshot(copied, old).step == 60
    other = checkpoint.save(folder, 2000, arrays, {**header, "task": "dmc_cup_catch"}, keep=3)
    with pytest.raises(ConfigError, match=f"a run of task {TASK}, and the checkpoint of dmc_cup"):
        read_snapshot(copied)
    assert other.exists()
    old.write_bytes(b"PK")
    with pytest.raises(ConfigError, match=f"^--checkpoint {old} "):
        read_snapshot(copied, old)


def test_a_checkpoint_of_another_run_is_refused(copied, run):
    path = copied / "config.yaml"
    settings = Config.read(path)
    settings.replace(seed=7, env={**settings.env, "action_repeat": 4}).save(path)
    (theirs,) = checkpoint.newest_first(run / "checkpoints")
    told = r"is of another run \(seed: saved 0, now 7; env.action_repeat: saved 2, now 4\)"
    with pytest.raises(ConfigError, match=told):
        read_snapshot(copied, theirs)
    elsewhere = shutil.copy(theirs, copied / "mine.npz")  # whose run nothing tells
    assert read_snapshot(copied, Path(elsewhere)).step == 60


def test_a_run_in_an_environment_that_is_not_here_can_be_read_but_not_played(copied, capsys):
    path, folder = copied / "config.yaml", copied / "checkpoints"
    Config.read(path).replace(task="gone:Arm").save(path)
    (old,) = checkpoint.newest_first(folder)
    arrays, header = checkpoint.load(old)
    checkpoint.save(folder, 60, arrays, {**header, "task": "gone:Arm"}, keep=1)
    assert build_agent(read_snapshot(copied))
    assert main(["evaluate", "--logdir", str(copied)]) == 2
    assert "gone:Arm: there is no module gone in " in capsys.readouterr().err


def test_an_environment_that_has_changed_since_is_told(run):
    snapshot = read_snapshot(run)
    check_environment(snapshot, SimpleNamespace(spec=snapshot.spec))
    other = SimpleNamespace(spec=Spec({"state": (3,)}, 1))
    with pytest.raises(ConfigError, match=r"is {'state': \(3,\)}, 1 actions now, and was {'image'"):
        check_environment(snapshot, other)


def test_a_checkpoint_on_a_disk_that_is_not_there_is_passed_over(copied):
    (old,) = checkpoint.newest_first(copied / "checkpoints")
    old.unlink()
    old.symlink_to("/no/such/disk/0000000060.npz")
    with pytest.warns(UserWarning), pytest.raises(ConfigError, match="no checkpoint that can be"):
        read_snapshot(copied)


def test_a_run_from_before_there_was_a_planner_is_planned_with_by_the_defaults(copied):
    path = copied / "config.yaml"
    settings = Config.read(path)
    assert settings.planner.candidates == 20
    Config({key: value for key, value in settings.items() if key != "planner"}).save(path)
    assert read_snapshot(copied).config.planner == load().planner


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logdir: shutil.rmtree(logdir), "--logdir {}: no such folder"),
        (lambda logdir: (logdir / "config.yaml").unlink(), "--logdir {}: not a run, which has"),
        (lambda logdir: shutil.rmtree(logdir / "checkpoints"), "--logdir {}: no checkpoint yet"),
        (
            lambda logdir: (logdir / "config.yaml").write_text(""),
            "{}/config.yaml: lacks env.time_limit",
        ),
        (
            lambda logdir: edit(logdir / "config.yaml", "deter: 16", "depter: 16"),
            "{}/config.yaml: has model.depter: another version of this program saved it",
        ),
        (
            lambda logdir: edit(logdir / "config.yaml", "deter: 16", "deter: x"),
            "{}/config.yaml: --model.deter x: must be a whole number",
        ),
        (
            lambda logdir: edit(logdir / "config.yaml", "deter: 16", "deter: 17"),
            "the checkpoint is of other networks: its ",
        ),
    ],
)
def test_a_folder_that_cannot_be_evaluated_is_told_in_one_line(copied, change, message, capsys):
    change(copied)
    status = main(["evaluate", "--logdir", str(copied), "--episodes", "1"])
    error = capsys.readouterr().err
    assert status == 1 + ("networks" not in message)
    assert message.format(copied) in error and error.count("\n") == 1


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_refused_is_refused_before_tensorflow_loads(run, tmp_path):
    (tmp_path / "file").touch()
    cases = [
        ([], "the following arguments are required: --logdir"),
        (["--logdir", run / "nope"], "no such folder"),
        (["--logdir=~/nope"], f"--logdir {Path.home()}/nope: no such folder"),
        (["--logdir", run, "--episodes", 0], "--episodes 0: must be a whole number of at least 1"),
        (["--logdir", run, "--seed", -1], "--seed -1: must be a whole number of at least 0"),
        (["--logdir", run, "--episode", 1], "unknown flag --episode: did you mean --episodes?"),
        (["--logdir", run, "--video", "a.avi"], "--video a.avi: must end in .mp4 or .gif"),
        (["--logdir", run, "--video", tmp_path / "file" / "a.gif"], "file is not a folder"),
        (["--logdir", run, "--video", tmp_path / "file" / "new" / "a.gif"], "file is not a folder"),
        (["--logdir", run, "--checkpoint", "nope"], "--checkpoint nope: no such file"),
        (["--logdir", run, "--planner", "mppi"], "--planner invalid choice: 'mppi' (choose from"),
    ]
    code = (
        "import json, sys; from dreamer_bird.cli import main;"
        "print([main(['evaluate', *words]) for words in json.loads(sys.argv[1])],"
        "      'tensorflow' in sys.modules)"
    )
    words = json.dumps([[*map(str, arguments)] for arguments, _ in cases])
    result = python("-c", code, words)
    assert result.stdout == f"{[2] * len(cases)} False\n"
    for error, (_, message) in zip(result.stderr.splitlines(), cases, strict=True):
        assert message in error


def test_a_folder_for_the_video_is_made_only_where_there_is_one(copied, tmp_path, capsys):
    config = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(config.replace(TASK, "missing_module:make"))
    flags = ["--logdir", str(copied), "--video", str(tmp_path / "new" / "folder" / "out.gif")]
    assert main(["evaluate", *flags]) == 2
    edit(copied / "config.yaml", "missing_module:make", TASK)
    edit(copied / "config.yaml", "deter: 16", "deter: 17")
    assert main(["evaluate", *flags]) == 1
    assert "the checkpoint is of other networks" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
