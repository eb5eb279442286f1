"""The command `evaluate`: episodes with a trained agent, and nothing written into its run."""

import json
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np

from dreamer_bird.commands.arguments import Parser, check_output, whole
from dreamer_bird.errors import RunError
from dreamer_bird.training.driver import start_worker
from dreamer_bird.training.snapshot import build_quietly, play, read_snapshot
from dreamer_bird.training.video import write_video

VIDEOS = (".mp4", ".gif")
FRAMES_PER_SECOND = 25


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
            if flags.video and "frame" not in episode:  # the worker has warned why
                raise RunError(f"--video {flags.video}: not written")
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
