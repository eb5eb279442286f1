"""The command `import`: weights of the public Dreamer, in its order, under our names."""

import json
import pickle
import random
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
from command_line import RUN, command
from harming import damaged, quietly
from reference import conv, dense, elu, gru, transposed_conv

from dreamer_bird.cli import main
from dreamer_bird.commands import import_dreamer as importing
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.commands.import_dreamer import layout, name_arrays, new_arrays, parse_sizes
from dreamer_bird.config import Config, load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.snapshot import build_agent, read_snapshot

SIZES = "depth=2,stoch=3,deter=5,hidden=4,units=6"
TASK = "dmc_finger_spin"  # two dimensions of actions
STEP = 400
# As they lie in the file: features are 3 + 5, embeddings 32 * 2, gates 3 * 5.
ACTOR = [(8, 6), (6,), (6, 6), (6,), (6, 6), (6,), (6, 6), (6,), (6, 4), (4,)]
DECODER = [(8, 64), (64,), (5, 5, 8, 64), (8,), (5, 5, 4, 8), (4,), (6, 6, 2, 4), (2,)]
DECODER += [(6, 6, 3, 2), (3,)]
GRU = [(4, 15), (5, 15), (2, 15)]
RSSM = [(5, 4), (4,), (5, 4), (4,), (4, 6), (6,), (69, 4), (4,), (4, 6), (6,)]
ENCODER = [(4, 4, 3, 2), (2,), (4, 4, 2, 4), (4,), (4, 4, 4, 8), (8,), (4, 4, 8, 16), (16,)]
METRICS = [()] * 26
REWARD = [(8, 6), (6,), (6, 6), (6,), (6, 1), (1,)]
VALUE = [(8, 6), (6,), (6, 6), (6,), (6, 6), (6,), (6, 1), (1,)]
SHAPES = ACTOR + DECODER + GRU + RSSM + ENCODER + METRICS + REWARD + VALUE
# Settings with which an episode and an update are short.
QUICK = ["--env.time_limit", 20, "--replay.length", 5, "--replay.batch", 2]
QUICK += ["--train.updates", 2, "--env.shadows", "false"]


def variables(shapes=SHAPES, step=STEP):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes]
    return (np.int64(step), *(array if array.ndim else array[()] for array in arrays))


def write(path, content):
    path.write_bytes(pickle.dumps(content, 4))
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What the command made of a file, and what it said."""
    folder = tmp_path_factory.mktemp("import")
    file, logdir = write(folder / "variables.pkl", variables()), folder / "runs" / "run"
    flags = ["--from", file, "--sizes", SIZES, "--task", TASK, "--logdir", logdir]
    result = command("import", *flags, *QUICK)
    assert (result.returncode, result.stderr) == (0, "")
    return logdir, result.stdout


@pytest.fixture(scope="module")
def agent(imported):
    """The agent that `evaluate` and `predict` make of it."""
    return build_agent(read_snapshot(imported[0]))


def test_it_makes_a_run(imported):
    logdir, said = imported
    assert sorted(path.name for path in logdir.iterdir()) == ["checkpoints", "config.yaml"]
    snapshot = read_snapshot(logdir)
    config = snapshot.config
    assert snapshot.step == STEP and snapshot.spec == Spec({"image": (64, 64, 3)}, 2)
    assert (config.variant, config.task, config.precision) == ("dreamer", TASK, "float32")
    assert (config.actor.layers, config.model.reward_layers, config.replay.capacity) == (4, 2, None)
    count = sum(int(np.prod(shape)) for shape in SHAPES if shape)
    assert said.splitlines()[0] == f"{logdir}: {count:,} weights, of environment step 400"


@pytest.fixture(scope="module")
def training(imported):
    """The words of the command that is printed last, after python and run.py."""
    python, program, *words = shlex.split(imported[1].splitlines()[-1])
    assert (python, program) == (sys.executable, str(RUN))
    return words


def test_the_command_to_go_on_with_is_that_of_the_run(imported, training):
    config = load(*parse_flags(training))
    assert config == Config.read(imported[0] / "config.yaml")
    assert Path(config.logdir) == imported[0]


def test_a_run_of_many_steps_goes_on_for_as_many_as_runs_have(tmp_path, capsys, monkeypatch):
    file = write(tmp_path / "variables.pkl", variables(step=3_000_000))
    monkeypatch.setattr(importing, "write_run", lambda *_: None)
    logdir = tmp_path / "a folder"
    flags = ["--from", file, "--sizes", SIZES, "--task", TASK, "--logdir", logdir]
    assert main(["import", *map(str, flags)]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    words = shlex.split(line)
    config = load(*parse_flags(words[words.index("--configs") :]))
    assert (config.steps, config.logdir) == (4_000_000, str(logdir))


class Layers:
    """Hands out the arrays of a file from front to back, as layers that `reference` takes."""

    def __init__(self, arrays):
        self.arrays = iter([array for array in arrays if array.ndim])

    def take(self):
        array = next(self.arrays)
        return SimpleNamespace(numpy=lambda: array)

    def __call__(self, count):
        return [SimpleNamespace(kernel=self.take(), bias=self.take()) for _ in range(count)]

    def gru(self):
        names = ("kernel", "recurrent_kernel", "bias")
        return SimpleNamespace(**{name: self.take() for name in names})


def chain(x, layers):
    for layer in layers[:-1]:
        x = elu(dense(x, layer))
    return dense(x, layers[-1])


def test_the_agent_computes_what_the_arrays_say(agent):
    """All networks once more in NumPy, from the arrays in the order of the file."""
    layers = Layers(variables())
    actor, decoder, cell = layers(5), layers(5), layers.gru()
    (img1, img2, img3, obs1, obs2), encoder = layers(5), layers(4)
    reward, value = layers(3), layers(4)
    assert next(layers.arrays, None) is None

    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (2, 64, 64, 3)) / 255 - 0.5
    stoch, deter, action = (rng.normal(size=(2, size)).astype(np.float32) for size in (3, 5, 2))
    embed = image
    for layer in encoder:
        embed = np.maximum(conv(embed, layer), 0)
    embed = embed.reshape(2, 64)
    after = gru(elu(dense(np.concatenate([stoch, action], -1), img1)), deter, cell)
    prior = chain(after, [img2, img3])
    post = chain(np.concatenate([after, embed], -1), [obs1, obs2])
    feat = np.concatenate([stoch, deter], -1)
    picture = dense(feat, decoder[0]).reshape(2, 1, 1, 64)
    for layer in decoder[1:-1]:
        picture = np.maximum(transposed_conv(picture, layer), 0)
    picture = transposed_conv(picture, decoder[-1])
    mean, std = np.split(chain(feat, actor), 2, -1)

    model, state = agent.world_model, {"stoch": stoch, "deter": deter, "mean": stoch, "std": stoch}
    ours = model.embed({"image": image.astype(np.float32)})
    posterior, imagined = model.rssm.obs_step(state, action, ours)
    dist = agent.actor_critic.actor(feat)
    for found, expected in [
        (ours, embed),
        (posterior["deter"], after),
        (posterior["mean"], post[:, :3]),
        (posterior["std"], np.log1p(np.exp(post[:, 3:])) + 0.1),
        (imagined["mean"], prior[:, :3]),
        (model.decoders["image"](feat).mode(), picture),
        (model.reward(feat).mode(), chain(feat, reward)[:, 0]),
        (agent.actor_critic.value(feat).mode(), chain(feat, value)[:, 0]),
        (dist.loc, 5 * np.tanh(mean / 5)),
        (dist.std, np.log1p(np.exp(std + np.log(np.expm1(5)))) + 1e-4),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_adam_begins_anew(imported, agent):
    arrays, _ = checkpoint.load(imported[0] / "checkpoints" / "0000000400.npz")
    moments = [name for name in arrays if "/first/" in name or "/second/" in name]
    assert len(moments) == 2 * len([shape for shape in SHAPES if shape])
    assert not any(arrays[name].any() for name in moments)


def test_evaluate_and_predict_accept_it(imported, tmp_path, capsys):
    logdir = str(imported[0])
    assert main(["evaluate", "--logdir", logdir, "--episodes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["step"], found["variant"], len(found["returns"])) == (STEP, "dreamer", 1)
    figure = tmp_path / "out.png"
    flags = ["--out", str(figure), "--context", "2", "--horizon", "3", "--frame", "5"]
    assert main(["predict", "--logdir", logdir, *flags]) == 0
    assert imageio.imread(figure).std() > 0


def test_training_goes_on_from_it(imported, training, tmp_path):
    logdir = shutil.copytree(imported[0], tmp_path / "run")
    # A process of its own, since a run sets TensorFlow's threads before anything is computed.
    done = command(*training, "--logdir", logdir, "--steps", STEP + 20)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 400" in done.stdout
    episode, update = map(json.loads, (logdir / "metrics.jsonl").read_text().splitlines()[:2])
    assert (episode["step"], episode["train/length"], episode["episodes"]) == (420, 10, 21)
    assert update["step"] == 420 and update["skipped_updates"] == 0
    before, after = (
        checkpoint.load(logdir / "checkpoints" / f"{step:010d}.npz")[0]["actor/h0/kernel"]
        for step in (400, 420)
    )
    # Two updates of Adam, each of at most about its learning rate.
    assert 0 < np.abs(after - before).max() < 4 * 8e-5


def shapes_of(settings, spec=Spec({"image": (64, 64, 3)}, actions=2)):  # noqa: B008
    return layout(new_arrays(load({"variant": "dreamer"} | settings, ["dreamer_tf2"]), spec))


def change(index, value):
    arrays = list(variables())
    arrays[index] = value
    return tuple(arrays)


NAN = np.full((8, 6), np.nan, np.float32)


@pytest.mark.parametrize(
    ("sizes", "arrays", "message"),
    [
        ("units=7", variables(), "actor/h0/kernel has shape (8, 6), .* want (8, 7)"),
        ("actor_layers=3", variables(), "actor/hout/kernel has shape (6, 6), .* want (6, 4)"),
        ("depth=3", variables(), "decoder/h1/kernel has shape (8, 64), .* want (8, 96)"),
        ("hidden=5", variables(), "rssm/gru/kernel has shape (4, 15), .* want (5, 15)"),
        ("stoch=2,deter=6", variables(), "rssm/gru/kernel has shape (4, 15), .* want (6, 18)"),
        ("reward_layers=3", variables(), "reward/h2/kernel has shape (6, 1), .* want (6, 6)"),
        ("value_layers=2", variables(), "value/hout/kernel has shape (6, 6), .* want (6, 1)"),
        ("value_layers=4", variables(), "value/h3/kernel has shape (6, 1), .* want (6, 6)"),
        ("", variables(SHAPES[:-2]), "has 53 weights, and the sizes want 55"),
        ("", variables([*SHAPES, (1,)]), "has 56 weights, and the sizes want 55"),
        ("", (), "does not begin with a number of steps"),
        ("", variables(step=-1), "does not begin with a number of steps"),
        ("", variables(step=10**10), "does not begin with a number of steps"),
        ("", variables()[1:], "does not begin with a number of steps"),
        ("", change(0, np.float32(400)), "does not begin with a number of steps"),
        ("", change(1, NAN), "actor/h0/kernel holds something else than finite numbers"),
        ("", change(1, np.ones((8, 6), int)), "actor/h0/kernel holds something else than finite"),
        ("", change(1, np.full((8, 6), 1e300)), "actor/h0/kernel holds something else than fin"),
    ],
)  # fmt: skip
def test_the_first_array_that_does_not_fit_is_named(sizes, arrays, message):
    settings = parse_sizes(SIZES) | (parse_sizes(sizes) if sizes else {})
    shapes = shapes_of(settings)
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=pattern):
        name_arrays(arrays, shapes)


def test_discrete_actions_and_a_discount_head():
    """Where Dreamer plays Atari: as many outputs as actions, and a network before the reward."""
    settings = parse_sizes(SIZES) | {"model.discount_head": True}
    spec = Spec({"image": (64, 64, 3)}, actions=4, discrete=True)
    shapes = [*shapes_of(settings, spec).values()]
    rssm = [(7, 4), *RSSM[1:]]  # three of them the stochastic state, and four actions
    discount = [(8, 6), (6,), (6, 6), (6,), (6, 6), (6,), (6, 1), (1,)]
    assert shapes == ACTOR + DECODER + GRU + rssm + ENCODER + discount + REWARD + VALUE


def test_sizes():
    assert parse_sizes("deter=7") == {"model.deter": 7, "model.hidden": 7}
    assert parse_sizes("hidden=8,deter=7") == {"model.deter": 7, "model.hidden": 8}
    units = {"model.units": 9, "actor.units": 9, "value.units": 9}
    assert parse_sizes("units=9,actor_layers=2") == {**units, "actor.layers": 2}


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Import, and return the line that refuses it before a worker or a folder is made."""

    def refused(*flags):
        before = sorted(tmp_path.rglob("*"))
        assert main(["import", *map(str, flags)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    def start(config, name):
        raise AssertionError("a worker")

    monkeypatch.setattr(importing, "start_worker", start)
    return refused


def test_what_cannot_be_used_is_refused_at_once(refused, tmp_path):
    file, used = write(tmp_path / "variables.pkl", variables()), tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").touch()
    flags = ["--from", file, "--task", TASK, "--logdir", tmp_path / "run"]
    for more, message in [
        (["--sizes", "depht=2"], "--sizes depht=2: unknown depht; did you mean depth?"),
        (["--sizes", "depth=0"], "--sizes depth=0: depth must be a whole number of at least 1"),
        (["--sizes", "depth"], "--sizes depth: depth must be a whole number of at least 1"),
        (["--sizes", "depth=2,,units=9"], "--sizes depth=2,,units=9: a part without a name; wri"),
        (["--sizes", "depth=2,"], "--sizes depth=2,: a part without a name; write depth=32,units="),
        (["--sizes", "=2"], "units=400 with names of depth, stoch, deter, hidden, units, reward_l"),
        (["--size", "depth=2"], "unknown flag --size: did you mean --sizes"),
        (["--logdir", used], f"--logdir {used}: is not empty; choose a new one"),
        (["--logdir", file], f"--logdir {file}: {file} is not a folder"),
        (["--task", "dmc_cartpole_swing"], "--task dmc_cartpole_swing: unknown; did you mean"),
        (["--from", tmp_path / "no"], f"{tmp_path / 'no'}: no such file"),
        (["--from", tmp_path], f"{tmp_path}: is not a file"),
        (["--obs", "state"], "--obs, --env.size: Dreamer's networks see images of 64x64"),
        (["--env.size", "32"], "--obs, --env.size: Dreamer's networks see images of 64x64"),
    ]:
        assert message in refused(*flags, *more)
    assert "the following arguments are required: --from, --task, --logdir" in refused()


def test_an_import_that_failed_can_be_repeated(tmp_path, capsys, monkeypatch):
    file, logdir = write(tmp_path / "variables.pkl", variables()), tmp_path / "run"
    flags = ["--from", file, "--sizes", SIZES, "--task", TASK, "--logdir", logdir, *QUICK]
    line, save = ["import", *map(str, flags)], checkpoint.save_arrays

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_arrays", full)
    assert main(line) == 1
    monkeypatch.setattr(checkpoint, "save_arrays", save)
    assert main(line) == 0, capsys.readouterr().err
    assert main(line) == 2 and "is not empty; choose a new one" in capsys.readouterr().err


def test_files_that_are_no_checkpoint_leave_nothing(refused, tmp_path):
    file = tmp_path / "variables.pkl"
    flags = ["--from", file, "--task", TASK, "--logdir", tmp_path / "run"]
    file.write_bytes(b"cos\nmkdir\n(X\x05\x00\x00\x00tracetR.")
    assert "variables.pkl: wants to call os.mkdir, which is no part of an array" in refused(*flags)
    file.write_bytes(b"")
    assert "variables.pkl: damaged, or not a pickle" in refused(*flags)


def test_another_task_leaves_nothing(tmp_path, capsys):
    file = write(tmp_path / "variables.pkl", variables())
    flags = ["--from", str(file), "--logdir", str(tmp_path / "run"), "--sizes", SIZES]
    assert main(["import", *flags, "--task", "dmc_cartpole_balance"]) == 2
    message = "actor/hout/kernel has shape (6, 4), and the sizes and the task want (6, 2)"
    assert capsys.readouterr().err.endswith(f"{file}: {message}\n")
    assert [*tmp_path.iterdir()] == [file]


def test_damaged_files(tmp_path, fuzz):
    """Any harm ends in weights of the right shapes, or in a line."""
    file, rng = tmp_path / "variables.pkl", random.Random(0)
    content = pickle.dumps(variables(), 4)
    shapes = shapes_of(parse_sizes(SIZES))

    def read():
        try:
            return name_arrays(importing.read_arrays(file), shapes)
        except ValueError as error:
            raise ConfigError(error) from None

    outcomes = set()
    for _ in range(2 * fuzz):
        file.write_bytes(damaged(content, rng))
        found = quietly(read)
        outcomes.add(found is None)
        if found:
            assert {name: values.shape for name, values in found[1].items()} == shapes
    assert outcomes == {True, False}
