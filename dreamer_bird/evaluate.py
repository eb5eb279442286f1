"""The command `evaluate`: episodes with a trained agent, and nothing written into its run."""

import json
import os
import warnings
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dreamer_bird import checkpoint, seeds
from dreamer_bird.arguments import Parser, whole
from dreamer_bird.config import RESUMABLE, RULES, Config, load
from dreamer_bird.driver import collect_episodes
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import ConfigError
from dreamer_bird.startup import quietly
from dreamer_bird.stopwatch import Stopwatch
from dreamer_bird.storage import Arrays, DamagedFileError, ReadError, replacing
from dreamer_bird.workers import start_worker

if TYPE_CHECKING:
    from dreamer_bird.agent import Agent

VIDEOS = (".mp4", ".gif")
FRAMES_PER_SECOND = 25
MP4_SIZE = 256  # pixels: players blur what they enlarge themselves


class Snapshot(NamedTuple):
    """A run as a checkpoint holds it, at an environment step."""

    logdir: Path
    config: Config
    spec: Spec
    arrays: Arrays
    step: int


def main(arguments: list[str]) -> int:
    """Play episodes with the mode of the policy and print their returns; return 0."""
    flags = _parse(arguments)
    snapshot = read_snapshot(flags.logdir, flags.checkpoint)
    if flags.video:
        check_output("--video", flags.video, VIDEOS)
    config, say = snapshot.config, (lambda text: None) if flags.json else partial(print, flush=True)
    say(f"{config.variant} on {config.task}, seed {config.seed}, at step {snapshot.step:,}")
    returns, images = [], []
    with start_worker(config, "evaluate") as env:
        agent = build_quietly(snapshot)
        for number in range(flags.episodes):
            episode = play(agent, env, flags.seed, number, frames=bool(flags.video))
            returns.append(float(episode["reward"].sum()))
            images += [episode["frame"]] if flags.video else []
            say(f"episode {number + 1}: return {returns[-1]:.1f}")
    if flags.video:
        write_video(flags.video, np.concatenate(images), FRAMES_PER_SECOND)
    mean, std = float(np.mean(returns)), float(np.std(returns))
    say(f"return {mean:.1f}, standard deviation {std:.1f}, of {flags.episodes} episodes")
    if flags.json:
        identity = {name: config[name] for name in ("task", "variant", "precision")}
        identity |= {"logdir": str(flags.logdir), "step": snapshot.step, "run_seed": config.seed}
        results = {"seed": flags.seed, "mean": mean, "std": std, "returns": returns}
        print(json.dumps(identity | results, allow_nan=False))
    return 0


def read_snapshot(logdir: Path, file: Path | None = None) -> Snapshot:
    """Read a run's settings and its newest readable checkpoint, or those in `file`.

    Changes nothing in the logdir, in which the run may go on meanwhile. Raises ConfigError where
    there is no run or no checkpoint, CheckpointError where the checkpoint is of another run.
    """
    if not logdir.is_dir():
        raise ConfigError(f"--logdir {logdir}: no such folder")
    config = _read_config(logdir)
    if file and not file.is_file():
        raise ConfigError(f"--checkpoint {file}: no such file")
    arrays, header = checkpoint.load(file) if file else _load_newest(logdir)
    for name in ("task", "variant"):
        if header[name] != config[name]:
            raise ConfigError(
                f"--logdir {logdir} is a run of {name} {config[name]}, and the checkpoint of "
                f"{header[name]}"
            )
    observation, *actions = header["spec"]
    spec = Spec({key: tuple(shape) for key, shape in observation.items()}, *actions)
    return Snapshot(logdir, config, spec, arrays, header["step"])


def build_agent(snapshot: Snapshot) -> "Agent":
    """Build a run's agent with its saved weights; imports TensorFlow, and changes nothing else.

    Raises CheckpointError if they do not fit.
    """
    from dreamer_bird.agent import Agent
    from dreamer_bird.precision import resolve_precision

    config = snapshot.config
    config = config.replace(precision=resolve_precision(config.precision))
    agent = Agent(config, snapshot.spec)
    # A checkpoint holds the run's own state too.
    names = agent.named_variables().keys() & snapshot.arrays.keys()
    agent.assign({name: snapshot.arrays[name] for name in names})
    return agent


def build_quietly(snapshot: Snapshot) -> "Agent":
    """Do what `build_agent` does in a command, whose process and terminal are ours."""
    with quietly():
        import dreamer_bird.agent  # noqa: F401
    return build_agent(snapshot)


def play(agent: "Agent", env: EnvWorker, seed: int, number: int, frames: bool = False) -> Arrays:
    """Return an episode of the policy's mode, as `collect_episodes` does.

    All of it follows from the weights, the seed and the number of the episode.
    """

    def act(obs: Arrays, state: Any, t: int) -> tuple[np.ndarray, Any]:
        return agent.act(obs, state, seeds.stateless(seed, "evaluate policy", number, t), False)

    start = seeds.integer(seed, "evaluate environment", number)
    return collect_episodes([env], act, [start], Stopwatch(), frames)[0]


def check_output(flag: str, path: Path, suffixes: Sequence[str]) -> None:
    """Raise ConfigError for a file of another kind or where none can be written; make nothing."""
    if path.suffix not in suffixes:
        raise ConfigError(f"{flag} {path}: must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise ConfigError(f"{flag} {path}: is a folder")
    # Folders that are missing are made when there is something to write.
    folder = next(folder for folder in path.absolute().parents if os.path.exists(folder))
    if not folder.is_dir():
        raise ConfigError(f"{flag} {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag} {path}: no permission to write in {folder}")


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames `[T, H, W, 3]`, uint8, as an mp4 (enlarged if small) or a GIF, atomically.

    Folders on the way are made where needed.
    """
    import imageio.v3 as imageio

    if path.suffix == ".gif":
        options = {"duration": 1000 / fps, "loop": 0}
    else:
        enlarge = ["-vf", f"scale={MP4_SIZE}:{MP4_SIZE}:flags=neighbor"]
        options = {"fps": fps, "output_params": enlarge}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(imageio.imwrite("<bytes>", frames, extension=path.suffix, **options))


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser("evaluate", "Play episodes with the newest checkpoint of a run.")
    add = parser.add_argument
    add("--logdir", type=Path, required=True, help="the run; nothing in it changes")
    add("--episodes", type=whole(1), default=10, help="how many to play (10)")
    add("--seed", type=whole(0), default=0, help="of episodes and policy (0)")
    add("--video", type=Path, help="file for all episodes, one after the other: .mp4 or .gif")
    add("--checkpoint", type=Path, help="file of an older checkpoint of this run")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse(arguments)


def _read_config(logdir: Path) -> Config:
    path = logdir / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"--logdir {logdir}: not a run, which has a config.yaml")
    settings = Config.read(path).flatten()
    # What a resumed run may change has no part in an episode.
    missing = [key for key in RULES if key not in settings and key not in RESUMABLE]
    if missing:
        raise ConfigError(f"{path}: lacks {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}")
    try:
        return load(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _load_newest(logdir: Path) -> tuple[Arrays, dict]:
    damaged = set()
    while paths := [p for p in checkpoint.newest_first(logdir / "checkpoints") if p not in damaged]:
        try:
            return checkpoint.load(paths[0])
        except (DamagedFileError, ReadError) as error:
            # One that is gone was removed by the run, which has written newer ones: look again.
            if paths[0].exists():
                damaged.add(paths[0])
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
    what = "no checkpoint that can be read" if damaged else "no checkpoint yet"
    raise ConfigError(f"--logdir {logdir}: {what}")
