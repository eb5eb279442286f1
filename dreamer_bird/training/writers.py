"""Where scalars go beside metrics.jsonl: TensorBoard, Weights & Biases, MLflow."""

import os
import queue
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from dreamer_bird.config import Config
from dreamer_bird.errors import ConfigError
from dreamer_bird.utils.files import replacing

PROJECT = "dreamer_bird"  # or MLflow's experiment, where the environment names none
WAITING = 10_000  # lines that may wait for a service
# Seconds in which a service takes what waits: at the end of a run, and when it is told to stop.
ENDING, STOPPING = 20.0, 2.0


class TensorBoard:
    """Event files in the logdir, opened when first written to."""

    name = "TensorBoard"

    def __init__(self, logdir: Path):
        """Take the folder."""
        import tensorflow as tf  # late, as all that uses it: mistakes are told without

        self._tf, self._logdir = tf, logdir

    @cached_property
    def _writer(self) -> Any:
        return self._tf.summary.create_file_writer(os.fsencode(self._logdir), max_queue=1000)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the scalars of a step."""
        with self._writer.as_default(step):
            for key, value in values.items():
                self._tf.summary.scalar(key if "/" in key else f"update/{key}", value)

    def gif(self, step: int, name: str, gif: bytes, shape: tuple[int, ...]) -> None:
        """Write a video, `[T, H, W, 3]`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        _, height, width, _ = shape
        image = {"height": height, "width": width, "colorspace": 3, "encoded_image_string": gif}
        summary = Summary(value=[{"tag": name, "image": image}])
        with self._writer.as_default(step):
            self._tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)

    def flush(self) -> None:
        """Write out what waits."""
        self._writer.flush()

    def close(self, _: float) -> None:
        """Write out and close."""
        self._writer.close()


class Service(NamedTuple):
    """A run of a service: its id there, what logs the scalars of a step, and what ends it."""

    id: str
    log: Callable[[int, Mapping[str, float]], None]
    close: Callable[[], None]


def _wandb(config: Config, logdir: Path, run_id: str | None) -> Service:
    """Begin a run of Weights & Biases, whose own variables say where and whether online.

    Or go on with the one of that id.
    """
    import wandb

    run = wandb.init(
        id=run_id,
        resume="allow",
        dir=str(logdir),
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=_name(config),
        config=config.flatten(),
        settings=wandb.Settings(console="off", quiet=True),
    )
    # A run that goes on writes some steps again, which the service's own steps do not allow.
    run.define_metric("*", step_metric="env_step")
    return Service(run.id, lambda step, values: run.log({"env_step": step, **values}), run.finish)


def _mlflow(config: Config, logdir: Path, run_id: str | None) -> Service:
    """Begin a run of MLflow, whose own variables say where, or go on with the one of that id."""
    import mlflow

    client = mlflow.MlflowClient()
    if run_id:
        client.update_run(run_id, status="RUNNING")
    else:
        named = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = client.get_experiment_by_name(named)
        number = found.experiment_id if found else client.create_experiment(named)
        run_id = client.create_run(number, run_name=_name(config)).info.run_id
        settings = config.flatten().items()
        params = [mlflow.entities.Param(key, str(value)) for key, value in settings]
        client.log_batch(run_id, params=params)

    def log(step: int, values: Mapping[str, float]) -> None:
        now, metric = int(1000 * time.time()), mlflow.entities.Metric
        metrics = [metric(key, value, now, step) for key, value in values.items()]
        client.log_batch(run_id, metrics=metrics)

    return Service(run_id, log, lambda: client.set_terminated(run_id))


SERVICES = {"wandb": _wandb, "mlflow": _mlflow}


class Background:
    """Hands scalars to a service in a thread; a failure is told once, and ends that alone."""

    def __init__(self, name: str, config: Config, logdir: Path):
        """Begin a run of the service, or go on with the one whose id is kept in the logdir."""
        self.name = f"--logger {name}"
        self._name, self._config, self._logdir = name, config, logdir
        self._lines: queue.Queue = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over the scalars of a step; where too many wait, they are lost."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._lines.put_nowait((step, {key: float(values[key]) for key in values}))

    def gif(self, *_: object) -> None:
        """Do nothing: a service gets scalars alone."""

    def flush(self) -> None:
        """Do nothing: a run does not wait for a service."""

    def close(self, patience: float) -> None:
        """Wait until the service has what it was given, for so many seconds at most."""
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(f"not all is there after {patience:g} s")

    def _work(self) -> None:
        path = self._logdir / f"{self._name}.id"
        try:
            known = path.read_text() if path.exists() else None
            service = SERVICES[self._name](self._config, self._logdir, known)
            if service.id != known:
                with replacing(path) as file:
                    file.write(service.id.encode())
            while line := self._lines.get():
                service.log(*line)
            service.close()
        except Exception as error:  # of any kind, and of no concern to the run
            self._warn(textwrap.shorten(str(error), 200) or type(error).__name__)

    def _warn(self, reason: str) -> None:
        warnings.warn(f"{self.name}: {reason}; training goes on", stacklevel=2)


Writer = TensorBoard | Background


def check_loggers(config: Config) -> None:
    """Raise ConfigError for a logger whose package is not installed; import none of them."""
    for name in config.logger.split(","):
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, as wandb itself leaves
            raise ConfigError(f"--logger {name}: run `pip install '.[{name}]'` first")


def open_writers(config: Config, logdir: Path) -> list[Writer]:
    """Open the writers that `logger` names."""
    names = config.logger.split(",")
    writers: list[Writer] = [TensorBoard(logdir)] if "tensorboard" in names else []
    return writers + [Background(name, config, logdir) for name in SERVICES if name in names]


def _name(config: Config) -> str:
    return f"{config.task} {config.variant} {config.seed}"
