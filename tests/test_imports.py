"""Imports point one way, and what must stay free of TensorFlow does."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dreamer_bird"
TENSORFLOW = {"tensorflow", "tensorflow_probability", "keras", "tf_keras", "tensorboard"}
PROTOCOL = "tensorboard.compat.proto."  # messages alone, whose import brings no TensorFlow
PUBLIC = {"__version__", "load", "main", "register"}  # of the package itself
# Each imports itself and those before it.
ORDER = ("errors", "utils", "envs", "config", "agent", "training", "policy", "commands", "cli")
ORDER += ("__main__",)
# Beside that order: it reads the logs of any program, and knows no agent and no run.
ANALYSIS = {"errors", "utils", "envs", "config", "analysis"}
NEEDS_TENSORFLOW = {
    *("agent.*", "utils.tensorflow", "training.train", "training.run_state", "training.collector"),
    *("training.diagnostics", "training.distributed.team"),
}


def imported(path):
    """Names of all modules that a file imports, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def inner(path):
    """Modules of this package that a file imports."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("dreamer_bird.")}
    return found - PUBLIC


PATHS = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    """Return the name of a module within the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def test_every_package_has_its_place():
    assert {name_of(path).split(".")[0] for path in PATHS} == {*ORDER, "analysis", "__init__"}


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_imports_point_one_way(path):
    own = name_of(path).split(".")[0]
    if own == "analysis":
        allowed = ANALYSIS
    elif own == "__init__":  # the public surface, imported when it is asked for
        allowed = {"policy", "cli", "envs"}
    else:
        allowed = {*ORDER[: ORDER.index(own) + 1]} | ({"analysis"} if own == "commands" else set())
    assert inner(path) <= allowed


@pytest.mark.parametrize("module", ["objectives", "distributions"])
def test_the_maths_knows_no_networks(module):
    found = {name for name in imported(PACKAGE / f"agent/{module}.py") if "dreamer_bird." in name}
    modules = {name.split(".")[2] for name in found}
    assert modules <= {"objectives", "distributions", "kernels", "replicas"}


@pytest.mark.parametrize("path", [p for p in PATHS if p.parent.name in ("envs", "analysis")])
def test_environments_and_analysis_never_import_tensorflow(path):
    names = {name for name in imported(path) if not name.startswith(PROTOCOL)}
    assert not {name.split(".")[0] for name in names} & TENSORFLOW


def test_only_the_agent_and_the_top_see_the_configuration():
    inside = {path.name for path in PACKAGE.glob("agent/*.py") if "config" in inner(path)}
    assert inside == {"agent.py", "actor_critic.py", "flops.py"}


def test_importing_these_brings_no_tensorflow():
    """All but what learns: a command is checked, and a worker started, without waiting for it."""
    free = [
        f"dreamer_bird.{name}"
        for name in map(name_of, PATHS)
        if not any(fnmatch(name, pattern) for pattern in NEEDS_TENSORFLOW) and name != "agent"
    ]
    code = f"import sys, {', '.join(free)}; print(sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert not TENSORFLOW & set(ast.literal_eval(loaded))


def test_the_variants_are_named_in_one_module_only():
    named = {
        path.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in ("bird", "soft_bird", "dreamer")
    }
    assert named == {"objectives.py", "import_dreamer.py"}  # the latter of the file's own program
