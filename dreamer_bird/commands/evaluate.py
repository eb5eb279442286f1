"""The command `evaluate`: episodes with a trained agent, and nothing written into its run."""

import json
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np

from dreamer_bird.commands.arguments import Parser, as_path, check_output, whole
from dreamer_bird.envs.worker import WorkerError
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training.driver import start_worker
from dreamer_bird.training.snapshot import (
    Snapshot,
    build_quietly,
    check_environment,
    film,
    play,
    read_snapshot,
)
from dreamer_bird.training.video import FRAMES_PER_SECOND, SIZE, write_video
from dreamer_bird.utils.files import Arrays

VIDEOS = (".mp4", ".gif")
WITH_VALUE = "cem-value"


def main(arguments: list[str]) -> int:
    """Play episodes with the mode of the policy, and with plans; print their returns; return 0."""
    flags = _parse(arguments)
    snapshot = read_snapshot(flags.logdir, flags.checkpoint)
    config, say = snapshot.config, (lambda text: None) if flags.json else partial(print, flush=True)
    if flags.video:
        check_output("--video", flags.video, VIDEOS)
    if flags.planner == WITH_VALUE and "value/hout/bias" not in snapshot.arrays:
        raise ConfigError(f"--planner {WITH_VALUE}: {config.variant} has no value; choose cem")
    say(f"{config.variant} on {config.task}, seed {config.seed}, at step {snapshot.step:,}")
    returns, episodes = play_episodes(flags, snapshot, say)
    results = {name: _summary(values) for name, values in returns.items()}
    for name, found in results.items():
        spread = f"standard deviation {found['std']:.1f}, of {flags.episodes} episodes"
        say(f"{name} {found['mean']:.1f}, {spread}")
    if flags.json:
        identity = {name: config[name] for name in ("task", "variant", "precision")}
        identity |= {"logdir": str(flags.logdir), "step": snapshot.step, "run_seed": config.seed}
        if flags.planner:
            identity |= {"planner": flags.planner, "planned": results["planned"]}
        print(json.dumps(identity | {"seed": flags.seed} | results["return"], allow_nan=False))
    if flags.video:  # last, so that the returns are told whatever becomes of it
        write_video(flags.video, film_episodes(flags, snapshot, episodes), FRAMES_PER_SECOND)
        say(str(flags.video))
    return 0


def play_episodes(
    flags: Namespace, snapshot: Snapshot, say: Callable[[str], None]
) -> tuple[dict[str, list[float]], list[tuple[int, Arrays]]]:
    """Return the returns of the policy, `return`, and of plans, `planned`, and the episodes.

    Both play from the same seeds. Without `--planner` there are no plans. Each episode comes with
    its number, from which its seed follows.
    """
    returns, episodes = defaultdict(list), []
    with start_worker(snapshot.config, "evaluate") as env:
        agents = {"return": build_quietly(snapshot)}
        check_environment(snapshot, env)
        if flags.planner:
            agents["planned"] = build_quietly(snapshot)
            agents["planned"].use_planner(with_value=flags.planner == WITH_VALUE)
        for number in range(flags.episodes):
            for name, agent in agents.items():
                episode = play(agent, env, flags.seed, number)
                returns[name].append(float(episode["reward"].sum()))
                # What a film is made from; all images of a thousand episodes would be gigabytes.
                episodes.append((number, {key: episode[key] for key in ("action", "reward")}))
            told = ", ".join(f"{name} {values[-1]:.1f}" for name, values in returns.items())
            say(f"episode {number + 1}: {told}")
    return returns, episodes


def film_episodes(
    flags: Namespace, snapshot: Snapshot, episodes: list[tuple[int, Arrays]]
) -> np.ndarray:
    """Return images `[T, H, W, 3]` of all episodes, larger than the agent sees them."""
    try:
        with start_worker(snapshot.config, "video", max(SIZE, snapshot.config.env.size)) as env:
            films = [film(env, flags.seed, number, episode) for number, episode in episodes]
    except WorkerError as error:
        raise RunError(f"--video {flags.video}: not written: {error}") from None
    return np.concatenate(films)


def _summary(returns: list[float]) -> dict[str, object]:
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "returns": returns}


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser(
        "evaluate",
        "Play episodes with the newest checkpoint of a run.",
        "--logdir logdir/dmc_walker_walk/bird/0 --video episodes.mp4",
    )
    add = parser.add_argument
    add("--logdir", type=as_path, required=True, help="the run; nothing in it changes")
    add("--episodes", type=whole(1), default=10, help="how many to play (10)")
    add("--seed", type=whole(0), default=0, help="of episodes and policy (0)")
    what = "also play each by plans in the run's model; cem-value: with the value at their end"
    add("--planner", choices=("cem", WITH_VALUE), help=what)
    add("--video", type=as_path, help="file for all episodes, one after the other: .mp4 or .gif")
    add("--checkpoint", type=as_path, help="file of an older checkpoint of this run")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return parser.parse(arguments)
