"""A run as its checkpoint holds it: read, rebuilt and played with, and nothing in it changed."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer_bird.config import NEWER, RESUMABLE, RULES, Config, differences, load
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import ConfigError
from dreamer_bird.training import checkpoint
from dreamer_bird.training.driver import collect_episodes
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays, DamagedFileError, ReadError
from dreamer_bird.utils.tensorflow import quietly
from dreamer_bird.utils.timer import Stopwatch

if TYPE_CHECKING:
    from dreamer_bird.agent.agent import Agent


class Snapshot(NamedTuple):
    """A run as a checkpoint holds it, at an environment step."""

    logdir: Path
    config: Config
    spec: Spec
    arrays: Arrays
    step: int


def read_snapshot(logdir: Path, file: Path | None = None) -> Snapshot:
    """Read a run's settings and its newest readable checkpoint, or those in `file`.

    Changes nothing in the logdir, in which the run may go on meanwhile. Raises ConfigError where
    there is no run or no checkpoint, or a checkpoint of another run.
    """
    if not logdir.is_dir():
        raise ConfigError(f"--logdir {logdir}: no such folder")
    config = _read_config(logdir)
    if file and not file.is_file():
        raise ConfigError(f"--checkpoint {file}: no such file")
    try:
        arrays, header = checkpoint.load(file) if file else _load_newest(logdir)
    except (DamagedFileError, ReadError) as error:
        raise ConfigError(f"--checkpoint {error}") from None
    for name in ("task", "variant"):
        if header[name] != config[name]:
            raise ConfigError(
                f"--logdir {logdir} is a run of {name} {config[name]}, and the checkpoint of "
                f"{header[name]}"
            )
    if file:
        _check_same_run(file, config)
    observation, *actions = header["spec"]
    spec = Spec({key: tuple(shape) for key, shape in observation.items()}, *actions)
    return Snapshot(logdir, config, spec, arrays, header["step"])


def check_environment(snapshot: Snapshot, env: EnvWorker) -> None:
    """Raise ConfigError if a run's environment is another one by now."""
    if env.spec != snapshot.spec:
        now, then = map(_told, (env.spec, snapshot.spec))
        raise ConfigError(f"{snapshot.config.task}: is {now} now, and was {then} in the run")


def build_agent(snapshot: Snapshot) -> "Agent":
    """Build a run's agent with its saved weights; imports TensorFlow, and changes nothing else.

    Raises CheckpointError if they do not fit.
    """
    from dreamer_bird.agent.agent import Agent

    # A few episodes do not repay compiling the policy.
    agent = Agent(snapshot.config.replace(xla="false"), snapshot.spec, learns=False)
    # A checkpoint holds optimizers and the run's own state too.
    names = agent.named_variables().keys() & snapshot.arrays.keys()
    agent.assign({name: snapshot.arrays[name] for name in names})
    return agent


def build_quietly(snapshot: Snapshot) -> "Agent":
    """Do what `build_agent` does in a command, whose process and terminal are ours."""
    with quietly():
        import dreamer_bird.agent.agent  # noqa: F401
    return build_agent(snapshot)


def play(agent: "Agent", env: EnvWorker, seed: int, number: int) -> Arrays:
    """Return an episode of the policy's mode, as `collect_episodes` does.

    All of it follows from the weights, the seed and the number of the episode.
    """

    def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
        return agent.act(obs, state, seeds.stateless(seed, "evaluate policy", number, t), False)

    return collect_episodes([env], act, [_start(seed, number)], Stopwatch())[0]


def film(env: EnvWorker, seed: int, number: int, episode: Arrays) -> np.ndarray:
    """Return images `[T + 1, H, W, 3]` of an episode of `play`, whose actions are taken again.

    `env` may show it larger than the agent saw it. Warns where it does not earn the same, as one
    whose episodes do not follow from the seed. Raises WorkerError where nothing can be rendered.
    """
    env.reset(_start(seed, number))
    images, rewards = [env.render()], [0.0]
    for action in episode["action"][1:]:
        _, reward, terminated, truncated = env.step(action)
        images.append(env.render())
        rewards.append(reward)
        if terminated or truncated:
            break
    if len(rewards) != len(episode["reward"]) or not np.allclose(rewards, episode["reward"]):
        warnings.warn("the video is of other episodes: one seed gives different ones", stacklevel=2)
    return np.stack(images)


def _told(spec: Spec) -> str:
    return f"{spec.observation}, {spec.actions} {'discrete ' * spec.discrete}actions"


def _start(seed: int, number: int) -> int:
    return seeds.integer(seed, "evaluate environment", number)


def _read_config(logdir: Path) -> Config:
    path = logdir / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"--logdir {logdir}: not a run, which has a config.yaml")
    settings = Config.read(path).flatten()
    unknown = [key for key in settings if key not in RULES]
    # What a resumed run may change, a run of before may lack.
    missing = [key for key in RULES if key not in {*settings, *RESUMABLE, *NEWER}]
    for what, names in (("has", unknown), ("lacks", missing)):
        if names:
            few = f"{', '.join(names[:3])}{' ...' * (len(names) > 3)}"
            raise ConfigError(f"{path}: {what} {few}: another version of this program saved it")
    try:
        # An agent acts without its environment, which need not exist here.
        return load(settings, known_task=False)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_same_run(file: Path, config: Config) -> None:
    folder = file.absolute().parent  # of a run, unless it was copied elsewhere
    beside = folder.with_name("config.yaml") if folder.name == "checkpoints" else None
    if beside and beside.is_file() and (lines := differences(Config.read(beside), config)):
        raise ConfigError(f"--checkpoint {file}: is of another run ({'; '.join(lines)})")


def _load_newest(logdir: Path) -> tuple[Arrays, dict]:
    damaged = set()
    while paths := [p for p in checkpoint.newest_first(logdir / "checkpoints") if p not in damaged]:
        try:
            return checkpoint.load(paths[0])
        except (DamagedFileError, ReadError) as error:
            # One that is gone was removed by the run, which has written newer ones: look again.
            if os.path.lexists(paths[0]):
                damaged.add(paths[0])
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
    what = "no checkpoint that can be read" if damaged else "no checkpoint yet"
    raise ConfigError(f"--logdir {logdir}: {what}")
