"""Damaged and mistyped input of every kind: an error in a line at worst, and nothing lost.

`--fuzz N` inputs of each kind, drawn from a seed; `make soak` has thousands.
"""

import gzip
import random
import shutil
import struct

import numpy as np
import pytest
from harming import WORDS, damaged, quietly
from ruamel.yaml import YAML
from tensorboard.compat.proto.event_pb2 import Event

from dreamer_bird.analysis.logs import read_logs
from dreamer_bird.cli import COMMANDS, main
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.config import CONFIG_FILE, RULES, Config, load
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.logdir import check_logdir
from dreamer_bird.training.replay import Replay

EPISODE = {
    "image": np.zeros((21, 8, 8, 3), np.uint8),
    "action": np.zeros((21, 1), np.float32),
    "reward": np.zeros(21, np.float32),
    "discount": np.ones(21, np.float32),
}


def files(folder):
    """The bytes of all files in a folder and below it, moved ones included."""
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_flags(fuzz):
    rng, accepted = random.Random(0), 0
    for _ in range(fuzz):
        arguments = []
        for _ in range(rng.randint(1, 4)):
            name = rng.choice([*RULES, "configs", "logdir", rng.choice(WORDS)])
            if rng.random() < 0.3:
                name = damaged(name.encode() or b"x", rng).decode(errors="replace")
            value = rng.choice([*WORDS, "cpu", "bird", str(rng.uniform(-1e3, 1e3))])
            arguments += rng.choice([[f"--{name}", value], [f"--{name}={value}"], [name, value]])
        accepted += bool(quietly(lambda words: load(*parse_flags(words)), arguments))
    assert 0 < accepted < fuzz


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"train", "bench"}))
def test_flags_of_commands(fuzz, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(command)
    known = ["--logdir", "--out", "--outdir", "--at", "--key", "--json", "--episodes", "--frame"]
    for _ in range(fuzz // 5):
        words = [rng.choice([*known, *WORDS[:13], "x.png"]) for _ in range(rng.randint(1, 5))]
        assert main([command, *words]) == 2, words
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and "Traceback" not in error, words
    assert list(tmp_path.iterdir()) == []


def test_configuration_files(fuzz, tmp_path):
    rng, accepted = random.Random(1), 0
    path, content = tmp_path / "configs.yaml", CONFIG_FILE.read_bytes()
    for _ in range(fuzz // 5):  # 30 ms each
        path.write_bytes(damaged(content, rng))
        accepted += bool(quietly(load, {}, ["debug"], path))
    assert 0 < accepted < fuzz // 5


def test_saved_settings(fuzz, tmp_path):
    rng = random.Random(2)
    config = load({"logdir": str(tmp_path)}, ["debug"])
    path = tmp_path / "config.yaml"
    config.save(path)
    content = path.read_bytes()
    for _ in range(fuzz):
        path.write_bytes(harmed := damaged(content, rng))
        quietly(check_logdir, config)
        assert path.read_bytes() == harmed


def test_episodes(fuzz, tmp_path):
    rng = random.Random(3)
    folder = tmp_path / "episodes"
    replay = Replay(folder, None, length=5)
    replay.add("good", EPISODE)
    replay.add("other", EPISODE)
    path = folder / "other.npz"
    content = path.read_bytes()
    for _ in range(fuzz):
        path.write_bytes(harmed := damaged(content, rng))
        replay = Replay(folder, None, length=5)
        quietly(replay.load, ["good", "other"])
        assert "good" in replay.names and harmed in files(folder)
        batch = replay.sample(4, np.random.default_rng(0))
        assert batch["image"].shape == (4, 5, 8, 8, 3) and batch["image"].dtype == np.uint8
        shutil.rmtree(folder / "damaged", ignore_errors=True)


def test_checkpoints(fuzz, tmp_path):
    rng = random.Random(4)
    arrays = {"encoder/h1/kernel": np.ones((3, 3)), "loss_scale": np.float32(1)}
    for step in (1, 2):
        checkpoint.save(tmp_path, step, arrays, {"step": step, "replay": []}, keep=2)
    path = tmp_path / "0000000002.npz"
    content = path.read_bytes()
    for _ in range(fuzz):
        path.write_bytes(harmed := damaged(content, rng))
        found = quietly(checkpoint.load_latest, tmp_path)
        # A flipped bit may make the number of the version another one: that is refused by name.
        assert found is None or found[1]["step"] in (1, 2)
        assert harmed in files(tmp_path)
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)


def json_lines():
    values = ["1.5", "Infinity", "NaN", "-3"] * 10
    lines = (
        f'{{"step": {step}, "test/return": {value}, "train/length": 500, "model_loss": null}}'
        for step, value in enumerate(values)
    )
    return "\n".join(lines).encode()


def events():
    written = (
        Event(step=step, summary={"value": [{"tag": "eval_return", "simple_value": step / 7}]})
        for step in range(40)
    )
    data = [event.SerializeToString() for event in written]
    return b"".join(struct.pack("<Q4x", len(each)) + each + bytes(4) for each in data)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", json_lines()),
        ("metrics.jsonl.gz", gzip.compress(json_lines())),
        ("eval.csv", b"frame,episode_reward,seed\n" + b"5,1.5,0\n7,nan,1\n" * 20),
        ("monitor.csv", b'#{"t_start": 1.0, "env_id": "x"}\nr,l,t\n' + b"1,2,3\n" * 20),
        ("events.out.tfevents.1", events()),
    ],
)
def test_logs(fuzz, tmp_path, name, content):
    rng, read = random.Random(5), 0
    path = tmp_path / name
    for _ in range(fuzz):
        path.write_bytes(harmed := damaged(content, rng))
        logs = quietly(read_logs, [path]) or []
        read += len(logs)
        for log in logs:
            for curve in log.curves.values():
                assert np.isfinite(curve.value).all() and (np.diff(curve.step) > 0).all()
        assert path.read_bytes() == harmed
    assert read


def test_a_round_of_settings_is_the_same_settings(fuzz, tmp_path):
    """What `save` writes `read` reads, for values of every kind that the rules allow."""
    rng = random.Random(6)
    numbers, rounds = [key for key, rule in RULES.items() if rule.kind in (int, float)], 0
    for _ in range(fuzz // 2):
        flags = {key: rng.choice([1, 2, 0.5, 1e-8, 1000, 7]) for key in rng.sample(numbers, 3)}
        flags |= {"logdir": str(tmp_path / rng.choice(["a b", "é", "#", ": x", "'", "null"]))}
        try:
            config = load(flags, ["debug"])
        except ConfigError:
            continue
        config.save(tmp_path / "config.yaml")
        assert Config.read(tmp_path / "config.yaml") == config
        saved = YAML(typ="safe", pure=True).load(tmp_path / "config.yaml")
        assert saved["logdir"] == flags["logdir"]
        rounds += 1
    assert rounds
