import sys
import types
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest
from command_line import RUN, command, python

from dreamer_bird import cli
from dreamer_bird.commands.arguments import parse_flags
from dreamer_bird.config import RULES
from dreamer_bird.errors import CheckpointError, ConfigError, ResumeError
from dreamer_bird.training import driver


class Worker(AbstractContextManager):
    """Notes when it is told to leave, and when it is waited for."""

    told: ClassVar[list[str]] = []

    def __init__(self, config, name):
        self.told.clear()

    def leave(self):
        self.told.append("leave")

    def __exit__(self, *_):
        self.told.append("wait")


@pytest.fixture
def trained(monkeypatch):
    """Replace training by a list of the configurations it was asked to train."""
    configs = []
    module = types.SimpleNamespace(
        train=lambda config, hosts, envs, eval_env: configs.append(config)
    )
    monkeypatch.setitem(sys.modules, "dreamer_bird.training.train", module)
    monkeypatch.setattr(driver, "start_worker", Worker)
    return configs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modle.lr", "3e-4"], "unknown flag --modle.lr: did you mean --model.lr?"),
        (["--variant", "brid"], "--variant brid: unknown; did you mean bird?"),
        (["--configs", "cpu", "debgu"], "--configs debgu: unknown; did you mean debug?"),
        (["trian"], "unknown command trian: did you mean train?"),
        (
            ["train", "--steps", "-5"],
            "--steps -5: must be a whole number of at least 1 and at most 1000000000",
        ),
        (["--replay.length", "502"], "--replay.length 502: an episode has 501 frames"),
        (["--task"], "--task: needs a value"),
        (["--logdir", f"{RUN}/x"], f"--logdir {RUN}/x: {RUN} is not a folder"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(
    trained, run_here, run_command, tmp_path, arguments, message
):
    run = run_command if arguments == ["--task"] else run_here
    result = run(*arguments)
    assert result.returncode == 2
    assert result.stderr == f"run.py: {message}\n"
    assert result.stdout == ""
    assert trained == list(tmp_path.iterdir()) == []


def help_lines(*arguments, cwd):
    result = command(*arguments, cwd=cwd)
    assert (result.returncode, result.stderr, list(cwd.iterdir())) == (0, "", [])
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    return lines


def test_help_all_explains_every_setting(tmp_path):
    lines = help_lines("--help-all", cwd=tmp_path)
    for key in RULES:
        (line,) = (line for line in lines if line.startswith(f"  --{key} "))
        assert len(line.split()) > 2, "a setting without a comment"
    assert (
        "  --objective.discount 0.99            gamma: nearer to 1 values later rewards more"
        in lines
    )
    assert "  soft_bird  objective.alpha 0.2, objective.entropy tanh" in lines
    assert any("dmc_cup_catch" in line for line in lines)


def test_help_shows_what_people_change_first(tmp_path):
    lines = help_lines("train", "--help", cwd=tmp_path)
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    assert flags[0] == "--task" and flags == [f"--{name}" for name in cli.FIRST]
    assert len(flags) == 10 and set(cli.FIRST) <= set(RULES)
    assert "  debug         Everything runs, nothing is learned, in under a minute" in lines
    assert lines[-1].startswith(f"--help-all: the tasks and all {len(RULES)} settings.")


def test_blocks_may_be_empty(tmp_path, monkeypatch):
    path = tmp_path / "configs.yaml"
    path.write_text("defaults: {}\nvariants: {mine: }\npresets:\n")
    monkeypatch.setattr(cli, "CONFIG_FILE", path)
    assert cli.explained() == ({}, {"mine": "the defaults"}, {})
    assert list(cli._section("presets", {})) == ["\npresets:"]


@pytest.mark.parametrize("name", sorted(set(cli.COMMANDS) - {"train"}))
def test_each_command_has_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([name, "--help"])
    example, usage, *_ = capsys.readouterr().out.split("\n\n")
    assert example.startswith("example: ") and f" {name} --" in example.replace(" logdir", "")
    assert usage.startswith("usage: ") and f" {name} [-h]" in usage


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "dreamer-bird"
    assert version[0].isdigit()


def test_no_tensorflow_before_a_run():
    code = (
        "import sys; from dreamer_bird.cli import main;"
        "print(main(['--help']), main(['--steps', '0']), 'tensorflow' in sys.modules)"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "0 2 False"


def test_worker_processes_import_nothing_through_run_py():
    code = (
        "import runpy, sys; before = set(sys.modules);"
        f"runpy.run_path({str(RUN)!r}, run_name='__mp_main__');"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(new - sys.stdlib_module_names)"
    )
    assert python("-c", code).stdout == "set()\n"


@pytest.mark.parametrize("command", [[], ["train"]])
def test_train_gets_the_resolved_config(trained, tmp_path, command):
    logdir = tmp_path / "run"
    flags = ["--configs", "cpu", "debug", "--seed", "3", "--steps=1e5", "--logdir", str(logdir)]
    assert cli.main([*command, *flags, "--model.lr", "3e-4"]) == 0
    (config,) = trained
    assert (config.seed, config.steps, config.model.lr) == (3, 100_000, 3e-4)
    assert (config.model.depth, config.logdir) == (4, str(logdir))
    assert not logdir.exists()


def test_all_workers_are_told_to_leave_before_any_is_waited_for(trained, tmp_path):
    assert cli.main(["--envs", "2", "--logdir", str(tmp_path / "run")]) == 0
    assert Worker.told == ["leave"] * 3 + ["wait"] * 3


@pytest.mark.parametrize(
    ("arguments", "flags", "presets"),
    [
        ([], {}, []),
        (["--configs", "a", "b", "--seed", "1"], {"seed": "1"}, ["a", "b"]),
        (["--configs", "a,b"], {}, ["a", "b"]),
        (["--configs=a", "--configs", "b"], {}, ["a", "b"]),
        (["--seed", "1", "--seed=2"], {"seed": "2"}, []),
        (["--logdir=a=b"], {"logdir": "a=b"}, []),
        (["--model.lr", "-1e-4"], {"model.lr": "-1e-4"}, []),
    ],
)
def test_parse_flags(arguments, flags, presets):
    assert parse_flags(arguments) == (flags, presets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-seed", "3"], "unknown flag -seed: did you mean --seed?"),
        (["--config", "cpu"], "unknown flag --config: did you mean --configs?"),
        (["--helpall"], "unknown flag --helpall: did you mean --help-all?"),
        (["--lr", "1"], "unknown flag --lr: did you mean --model.lr, --actor.lr or --value.lr?"),
        (["--zzz", "1"], "unknown flag --zzz: --help-all lists the valid ones"),
        (["--seed", "1", "2"], "unexpected 2: flags are written --name value"),
        (["--logdir", "--seed", "1"], "--logdir: needs a value"),
        (["--configs", "--seed", "1"], "--configs: needs a value"),
    ],
)
def test_flags_that_cannot_be_parsed(arguments, message):
    with pytest.raises(ConfigError) as caught:
        parse_flags(arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError, 2), (ResumeError, 2), (CheckpointError, 1), (KeyboardInterrupt, 130)],
)
def test_errors_of_a_run_are_told_without_a_traceback(
    trained, monkeypatch, capsys, tmp_path, error, status
):
    def fail(config, hosts, envs, eval_env):
        raise error("what happened")

    monkeypatch.setattr(sys.modules["dreamer_bird.training.train"], "train", fail)
    monkeypatch.setattr(sys, "argv", ["/somewhere/dreamer-bird"])
    assert cli.main(["--logdir", str(tmp_path)]) == status
    line = capsys.readouterr().err
    assert line.startswith("dreamer-bird: ") and line.count("\n") == 1
    assert ("interrupted" if error is KeyboardInterrupt else "what happened") in line


def test_errors_of_the_program_keep_their_traceback(trained, monkeypatch, tmp_path):
    def fail(config, hosts, envs, eval_env):
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["dreamer_bird.training.train"], "train", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["--logdir", str(tmp_path)])
