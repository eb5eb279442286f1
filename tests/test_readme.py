"""What README and docs tell to type: Python runs for real, and flags of commands are accepted."""

import ast
import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from command_line import ROOT, python
from gymnasium.spaces import Box
from markdown_it import MarkdownIt

from dreamer_bird import cli
from dreamer_bird.cli import main
from dreamer_bird.commands.arguments import Parser
from dreamer_bird.config import load
from dreamer_bird.envs.checks import Checked

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
# Where the commands that take flags of training read them.
COMMANDS_WITH_SETTINGS = ("bench", "doctor.examine", "import_dreamer", "sweep.plan")
LOADERS = ("cli", *(f"commands.{name}" for name in COMMANDS_WITH_SETTINGS))
TINY = ["--configs", "debug", "--steps", "60", "--env.time_limit", "30", "--train.updates", "1"]


def code(page):
    """Return the blocks of code of a page, and the code within its sentences and tables."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    inner = [child for token in tokens for child in token.children or ()]
    blocks = [token.content for token in tokens if token.type in ("code_block", "fence")]
    return blocks, [token.content for token in inner if token.type == "code_inline"]


def python_blocks(page):
    found = []
    for block in code(page)[0]:
        try:
            ast.parse(block)
        except SyntaxError:
            continue
        found.append(block)
    return found


def commands():
    """Yield each page with the words after run.py, without brackets, where none is left open."""
    for page in PAGES:
        blocks, inline = code(page)
        text = "\n".join([*blocks, *inline]).replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True) if "run.py" in line else []
            if "..." in words:
                continue
            for number, word in enumerate(words):
                if word.endswith("run.py") and words[number + 1 :]:
                    yield page.name, [each.strip("[]") for each in words[number + 1 :]]


COMMANDS = list(commands())


class ParsedError(Exception):
    """The command line was accepted; nothing of it is carried out."""


@pytest.fixture
def only_parsing(tmp_path, monkeypatch):
    """Let commands end with `ParsedError` when they have read their flags, in an empty folder."""

    def then_end(function):
        def read(*arguments):
            function(*arguments)
            raise ParsedError

        return read

    monkeypatch.setattr(Parser, "parse", then_end(Parser.parse))
    for name in LOADERS:
        monkeypatch.setattr(f"dreamer_bird.{name}.load", then_end(load))
    monkeypatch.chdir(tmp_path)
    for name in ("my_module", "point"):  # those of the examples, which lie in the current folder
        Path(f"{name}.py").touch()


def test_the_commands_are_found():
    told = {page for page, _ in COMMANDS}
    assert told >= {"README.md", "CONTRIBUTING.md", "container.md", "environments.md"}
    names = {words[0] for _, words in COMMANDS if not words[0].startswith("-")}
    assert names >= {
        *("export", "import", "compare", "plot", "report"),
        *("evaluate", "predict", "bench", "doctor"),
    }


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page}: {shlex.join(words)}" for page, words in COMMANDS]
)
def test_a_command_is_accepted(page, words, only_parsing):
    if any("atari" in word for word in words):
        pytest.importorskip("ale_py")
    with pytest.raises(ParsedError):
        main(words)


@pytest.mark.parametrize("name", ["train", *sorted(set(cli.COMMANDS) - {"train"})])
def test_the_example_that_help_begins_with_is_accepted(name, request, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py"])
    with suppress(SystemExit):
        main([name, "--help"])
    request.getfixturevalue("only_parsing")
    _, *words = capsys.readouterr().out.splitlines()[0].removeprefix("example: ").split()
    assert len(words) > 2
    with pytest.raises(ParsedError):
        main(words)


def test_a_command_with_a_slip_is_not_accepted(only_parsing, capsys):
    for words in (["--configs", "cpuu"], ["compare", "logdir", "--agains", "x"], ["bench", "--x"]):
        assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 3


def run(code, folder):
    """Run a script in a folder, as one that has installed the package."""
    (folder / "script.py").write_text(code)
    done = python("script.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_python_is_run_here():
    assert {page.name: len(blocks) for page in PAGES if (blocks := python_blocks(page))} == {
        "README.md": 1,
        "environments.md": 3,
    }


def test_the_loop_of_the_readme_acts(tiny_run, tmp_path):
    (block,) = python_blocks(ROOT / "README.md")
    logdir = tmp_path / "logdir" / "dmc_cheetah_run" / "bird" / "0"
    assert f'"{logdir.relative_to(tmp_path)}"' in block
    logdir.parent.mkdir(parents=True)
    logdir.symlink_to(tiny_run)
    told = run(f"{block}\n    print(done, truncated, action.shape, action.dtype)\n", tmp_path)
    assert told == "True True (1,) float32\n"


def test_the_script_that_registers_an_environment_trains_in_it(tmp_path):
    environment, script, _ = python_blocks(ROOT / "docs" / "environments.md")
    (tmp_path / "point.py").write_text(environment)
    short = script.replace('"state"]', f'"state", {str(TINY)[1:-1]}]')
    assert short != script
    assert "finished at step" in run(short, tmp_path)
    assert list((tmp_path / "logdir" / "point" / "bird" / "0" / "checkpoints").iterdir())


class Sloppy(gymnasium.Env):
    """Observes float64 where it declares float32."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.array([0.1, 0.2]), {}


@pytest.mark.filterwarnings("ignore")  # of gymnasium's own check, on what is sloppy
def test_the_factory_that_mends_an_environment_mends_it(monkeypatch):
    block = python_blocks(ROOT / "docs" / "environments.md")[2]
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("Sloppy-v0", Sloppy)
    names = {"gymnasium": gymnasium, "np": np}
    exec(block, names)
    observation, _ = Checked("sloppy", names["make"]()).reset(seed=0)
    assert observation.dtype == np.float32
    np.testing.assert_array_equal(observation, np.float32([0.1, 0.2]))


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    point = (ROOT / "examples" / "point.py").read_text()
    # Whatever so short a training leads to, its episodes are long enough to predict.
    (tmp_path / "point.py").write_text(point.replace("distance > 2", "False"))
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    short = (
        code.replace("STEPS = 4500", "STEPS = 600").replace('"150"', '"5"').replace('"12"', '"5"')
    )
    assert short != code
    # From the standard input, so that the main module is no file, as in a notebook.
    done = python("-", cwd=tmp_path, text=short, MPLBACKEND="agg")
    assert done.returncode == 0, done.stderr
    assert "finished at step" in done.stdout and "agent steps, return" in done.stdout
    assert {path.name for path in (tmp_path / "logdir" / "figures").iterdir()} == {
        *("return.png", "prediction.png", "prediction.gif")
    }
