"""Fixtures shared by the tests; TensorFlow is imported only where a fixture needs it."""

import json
import os
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import command, here
from sizes import ACTIONS, BATCH, LENGTH, SPEC
from toy_envs import SIZE, STEPS, Noise

from dreamer_bird.analysis.curves import Curve
from dreamer_bird.analysis.logs import Log
from dreamer_bird.config import Config, load
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.training.distributed.hosts import Hosts
from dreamer_bird.utils import seeds

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is first imported
# Compiling takes most of the time of tests that compile.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="stops in the test that stops runs")
    parser.addoption("--fuzz", type=int, default=100, help="inputs of each kind in fuzz tests")


# First the longest, each of which would leave a process alone with it if it came late.
FIRST = (
    "test_compiled",
    *("test_stopping", "test_train", "test_replicas", "test_overlap", "test_distributed"),
    *("test_run", "test_run_state", "test_collector", "test_sweep_ray", "test_bench"),
    *("test_envs", "test_tensorflow", "test_readme", "test_library", "test_custom_env"),
    *("test_evaluate", "test_import_dreamer", "test_planet", "test_worker", "test_doctor"),
    *("test_streams", "test_compare"),
)


def _turn(item):
    stem = item.path.stem
    return FIRST.index(stem) if stem in FIRST else len(FIRST)


def pytest_collection_modifyitems(config, items):
    items.sort(key=_turn)
    if config.getoption("kills") < 10:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="`make soak` runs it"))


@pytest.fixture
def kills(request):
    return request.config.getoption("kills")


@pytest.fixture
def fuzz(request):
    return request.config.getoption("fuzz")


def _config(**flags: object) -> Config:
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    # Without free nats, so that no gradient of the divergence is missing.
    return load({"precision": "float32", "model.free_nats": 0, **dotted}, ["debug"])


@pytest.fixture(scope="session")
def make_agent():
    """Build a tiny agent: settings as keywords, `objective__alpha=0` for `objective.alpha`."""
    from dreamer_bird.agent.agent import Agent

    return lambda spec=SPEC, **flags: Agent(_config(**flags), spec)


@pytest.fixture(scope="session")
def shared_agent(make_agent):
    return make_agent()


@pytest.fixture
def agent(shared_agent):
    """The tiny agent whose functions are traced once for all tests, with its first weights."""
    first = _values(shared_agent)
    yield shared_agent
    _assign(shared_agent, first)


def _values(agent):
    # Not of those alone that a checkpoint holds: what one lacks must not come from the run before.
    return [variable.numpy() for variable in agent.variables]


def _assign(agent, values):
    for variable, value in zip(agent.variables, values, strict=True):
        variable.assign(value)
    agent._actor_waits = 1


@pytest.fixture(scope="session")
def idle():
    """Agents, traced, and workers of runs that ended, by all that makes them."""
    return defaultdict(list)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The logdir of a finished run from state, of six episodes and five updates."""
    logdir = tmp_path_factory.mktemp("tiny") / "run"
    flags = ["--task", "dmc_cartpole_balance", "--obs", "state", "--steps", "60"]
    flags += ["--env.time_limit", "20", "--train.prefill", "2", "--train.updates", "1"]
    done = command("--configs", "debug", *flags, "--actor.init_std", "0.5", "--logdir", logdir)
    assert done.returncode == 0, done.stderr
    return logdir


class RunMaker:
    """Builds runs of random pixels in this process, `check` and settings as it takes them.

    Agents, traced, and workers go from run to run: to make them takes longer than most runs last.
    Noise fails once where there is a file `failure`.
    """

    def __init__(self, folder, failure, idle):
        self._folder, self.failure, self._idle, self._lent = folder, failure, idle, {}

    def __call__(self, check=lambda: None, folder="run", make_env=None, **flags):
        from dreamer_bird.training import collector
        from dreamer_bird.training.distributed.team import Team
        from dreamer_bird.training.train import Run

        settings = {"precision": "float32", "train.prefill": 1, "train.updates": 2}
        settings |= {"env.time_limit": 2 * STEPS, "env.size": SIZE, **flags}
        config = load(settings, ["debug"])
        (self._folder / folder).mkdir(exist_ok=True)
        team = Team(1, Hosts())
        with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
            workers = [self._worker(str(number), make_env) for number in range(config.envs + 1)]
            *envs, eval_env = map(stack.enter_context, workers)
            patch.setattr(team, "build_agent", partial(self._agent, stack))
            patch.setattr(collector, "Agent", partial(self._agent, stack))  # a copy, which acts
            run = Run(config, self._folder / folder, team, envs, eval_env, check)
            stack.callback(run.logger.close)
            stack.callback(run.collector.close)
            self._lent[run] = stack.pop_all()
        return run

    @contextmanager
    def _worker(self, name, make_env):
        idle = [] if make_env else self._idle[name]
        worker = idle.pop() if idle else EnvWorker(name, make_env or partial(Noise, self.failure))
        process, worker.films = worker._process, True
        try:
            yield worker
        finally:
            closed, busy = worker._connection.closed, worker._begun
            # One that was restarted ends with the thread that did so.
            if make_env or closed or busy or worker._process is not process:
                worker.close()
            else:
                idle.append(worker)

    def _agent(self, stack, config, spec, learns=True):
        from dreamer_bird.agent.agent import Agent

        others = {name: {} for name in ("env", "worker", "replay", "train")}
        settings = config.replace(task="", steps=0, logdir=None, envs=1, **others).flatten()
        idle = self._idle[repr((settings, config.train.expl_amount, spec, learns))]
        if not idle:
            agent = Agent(config, spec, learns)
            idle.append((agent, _values(agent)))
        agent, first = idle.pop()
        traced = dict(agent._traced)  # before which a test may put its own

        @stack.callback
        def take_back():
            _assign(agent, first)
            agent._traced = traced
            idle.append((agent, first))

        return agent

    def end(self, run):
        """Close a run, whose agent and workers another may have from now on; return it."""
        self._lent.pop(run).close()
        return run

    def end_all(self):
        for run in list(self._lent):
            self.end(run)


@pytest.fixture
def make_run(tmp_path, tmp_path_factory, idle):
    """Build and end runs, as RunMaker does; those that are left end with the test."""
    maker = RunMaker(tmp_path, tmp_path_factory.getbasetemp() / "failure", idle)
    yield maker
    maker.end_all()
    maker.failure.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def batch():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    shape = (BATCH, LENGTH)
    return {
        "image": tf.constant(rng.integers(0, 256, (*shape, 64, 64, 3), dtype=np.uint8)),
        "action": tf.constant(rng.uniform(-1, 1, (*shape, ACTIONS)), tf.float32),
        "reward": tf.constant(rng.normal(size=shape), tf.float32),
        "discount": tf.ones(shape),
    }


@pytest.fixture(scope="session")
def seed():
    import tensorflow as tf

    return tf.constant(seeds.stateless(0, "test", 0))


@pytest.fixture
def make_log():
    """Build a log in memory from points, `{key: [(step, value), ...]}` or returns alone."""

    def make(points, task="dmc_walker_walk", method="bird", seed=0) -> Log:
        curves = points if isinstance(points, dict) else {"test/return": points}
        for key, pairs in curves.items():
            steps, values = zip(*pairs, strict=True)
            curves = {**curves, key: Curve(np.array(steps), np.array(values, float))}
        return Log(task, method, str(seed), Path(f"{task}/{method}/{seed}"), curves)

    return make


@pytest.fixture
def write_log(tmp_path):
    """Write metrics.jsonl of returns `[(step, value), ...]` or of raw lines; return its path."""

    def write(name, points=(), lines=(), key="test/return") -> Path:
        path = tmp_path / name / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"step": int(step), key: value}) for step, value in points]
        path.write_text("".join(f"{line}\n" for line in [*rows, *lines]))
        return path

    return write


@pytest.fixture
def run_command(tmp_path):
    """Run `run.py` in an empty folder."""
    return partial(command, cwd=tmp_path)


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Run a command in an empty folder, in this process."""
    monkeypatch.chdir(tmp_path)
    return here
