"""Imports point one way, and what must stay free of TensorFlow does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dreamer_bird"
TENSORFLOW = {"tensorflow", "tensorflow_probability", "keras", "tf_keras", "tensorboard"}
NETWORKS = {"layers", "networks", "rssm", "world_model", "agent", "optimizer"}
# Only these see the whole configuration.
SEE_CONFIG = {
    *("agent.py", "train.py", "reporting.py", "cli.py", "logdir.py", "workers.py"),
    *("collector.py", "evaluator.py"),  # parts of a run
    *("arguments.py", "bench.py", "flops.py"),
    *("evaluate.py", "logs.py", "library.py"),  # which read those of runs
    "importing.py",  # which makes one
    *("plan.py", "command.py"),  # which make many
    *("hosts.py", "team.py"),  # among whom its work is divided
    *("needs.py", "examine.py", "trials.py"),  # which reckon and try what one needs
}
NO_TENSORFLOW = [
    "dreamer_bird",
    "dreamer_bird.cli",
    "dreamer_bird.config",
    "dreamer_bird.errors",
    "dreamer_bird.seeds",
    "dreamer_bird.storage",
    "dreamer_bird.logdir",
    "dreamer_bird.replay",
    "dreamer_bird.checkpoint",
    "dreamer_bird.doctor.examine",
    "dreamer_bird.doctor.trials",
    "dreamer_bird.driver",
    "dreamer_bird.stopwatch",
    "dreamer_bird.signals",
    "dreamer_bird.watchdog",
    "dreamer_bird.evaluate",
    "dreamer_bird.export",
    "dreamer_bird.hosts",
    "dreamer_bird.importing",
    "dreamer_bird.library",
    "dreamer_bird.pickles",
    "dreamer_bird.predict",
    "dreamer_bird.sweep.command",
    "dreamer_bird.sweep.node",
    "dreamer_bird.analysis.compare",
    "dreamer_bird.analysis.plot",
    "dreamer_bird.analysis.report",
    "dreamer_bird.envs",
    *(f"dreamer_bird.envs.{name}" for name in ("adapter", "checks", "dmc", "own", "registered")),
    *(f"dreamer_bird.envs.{name}" for name in ("server", "spaces", "tasks", "worker")),
]


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
    return found - {"__version__"}


@pytest.mark.parametrize("module", ["objectives", "returns", "distributions"])
def test_the_maths_knows_no_networks(module):
    assert not inner(PACKAGE / f"{module}.py") & (NETWORKS | {"config", "train"})


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("envs/*.py")), ids=lambda path: path.name)
def test_environments_know_neither_tensorflow_nor_the_agent(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & TENSORFLOW
    assert inner(path) <= {"envs", "errors"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("analysis/*.py")), ids=lambda path: path.name)
def test_the_analysis_reads_logs_and_needs_no_tensorflow(path):
    assert not {name.split(".")[0] for name in imported(path)} & TENSORFLOW
    assert inner(path) <= {"analysis", "arguments", "config", "envs", "errors", "storage"}


def test_only_the_agent_and_the_top_see_the_configuration():
    assert {path.name for path in PACKAGE.rglob("*.py") if "config" in inner(path)} <= SEE_CONFIG


def test_there_is_no_cycle():
    graph = {path.stem: inner(path) - {path.stem} for path in PACKAGE.glob("*.py")}
    for folder in ("envs", "analysis", "doctor", "sweep"):
        paths = PACKAGE.glob(f"{folder}/*.py")
        graph[folder] = set().union(*map(inner, paths)) - {folder}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"cycle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_importing_these_brings_no_tensorflow():
    code = f"import sys, {', '.join(NO_TENSORFLOW)}; print(sorted(sys.modules))"
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
    assert named == {"objectives.py", "importing.py"}  # the latter of the file's own program
