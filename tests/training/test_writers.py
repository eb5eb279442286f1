"""Services that get the scalars of a run: Weights & Biases and MLflow."""

import sys
import time
import types
import warnings
from importlib.util import find_spec

import pytest

from dreamer_bird import cli
from dreamer_bird.config import load
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import writers
from dreamer_bird.training.writers import Background, check_loggers, open_writers


class Wandb(types.ModuleType):
    """What is used of the package, and what it was told."""

    def __init__(self, log=lambda values: None):
        super().__init__("wandb")
        self.begun, self.logged, self.finished = [], [], 0
        self._log = log
        self.Settings = dict

    def init(self, **given):
        self.begun.append(given)
        self.id = given["id"] or "new1"
        return self

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "env_step")

    def log(self, values):
        self._log(values)
        self.logged.append(values)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """Put a package in the place of the real one, with what its `log` does."""

    def put(**given):
        monkeypatch.setitem(sys.modules, "wandb", module := Wandb(**given))
        return module

    return put


def config(names):
    return load({"logger": names, "task": "gym_Pendulum-v1", "seed": 3}, ["debug"])


def test_a_service_gets_scalars_and_settings_and_goes_on_under_its_id(wandb, tmp_path):
    module = wandb()
    for step in (1, 2):
        (writer,) = open_writers(config("wandb"), tmp_path)
        writer.scalars(step, {"train/return": 5.0})
        writer.close(5)
    assert [given["id"] for given in module.begun] == [None, "new1"]
    assert module.begun[0]["config"]["model.lr"] == 6e-4
    assert (module.begun[0]["dir"], module.begun[0]["resume"]) == (str(tmp_path), "allow")
    assert module.logged == [{"env_step": step, "train/return": 5.0} for step in (1, 2)]
    assert module.finished == 2


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_service_that_fails_is_told_once_and_ends_nothing(wandb, tmp_path):
    def fail(values):
        raise OSError("the server\n is away")

    wandb(log=fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (writer,) = open_writers(config("wandb"), tmp_path)
        for step in range(100):
            writer.scalars(step, {"a": 1.0})
            time.sleep(0.001)
        writer.close(5)
    (told,) = caught
    assert str(told.message) == "--logger wandb: the server is away; training goes on"


def test_a_service_slows_no_step_and_no_end(wandb, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "WAITING", 10)
    wandb(log=lambda values: time.sleep(60))
    start = time.monotonic()
    with pytest.warns(UserWarning, match="--logger wandb: not all is there after 0.2 s"):
        writer = Background("wandb", config("wandb"), tmp_path)
        for step in range(1000):
            writer.scalars(step, {"a": 1.0})
        writer.close(0.2)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("tensorboard,wandb", "--logger wandb: run `pip install '.[wandb]'` first"),
        ("mlflow", "--logger mlflow: run `pip install '.[mlflow]'` first"),
        ("wandb,tensorbord", "--logger wandb,tensorbord: tensorbord is none; choose from "),
        ("", "--logger: needs a value"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_created(
    tmp_path, monkeypatch, capsys, names, told
):
    monkeypatch.setattr(
        writers, "find_spec", lambda name: find_spec(name) if name == "tensorboard" else None
    )
    logdir = tmp_path / "run"
    flags = ["--logger", names] if names else ["--logger"]
    assert cli.main(["--configs", "debug", "--logdir", str(logdir), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line and not logdir.exists()


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigError, match="--logger mlflow: run"):
        check_loggers(config("mlflow"))


def log_twice(names, logdir):
    """Return the ids under which two parts of a run have logged."""
    ids = []
    for step in (1, 2):
        (writer,) = open_writers(config(names), logdir)
        writer.scalars(step, {"train/return": float(step)})
        writer.close(5)
        ids.append((logdir / f"{names}.id").read_text())
    return ids


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    first, second = log_twice("wandb", tmp_path)
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert first == second and folders
    assert all(name.endswith(first) for name in folders)


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    first, second = log_twice("mlflow", tmp_path)
    client = mlflow.MlflowClient(uri)
    values = [
        (point.step, point.value) for point in client.get_metric_history(first, "train/return")
    ]
    assert first == second and values == [(1, 1.0), (2, 2.0)]
    run = client.get_run(first)
    assert (run.info.status, run.data.params["seed"]) == ("FINISHED", "3")
