"""The command `predict`: what world models foresee of one real episode (the paper's figure 3)."""

import io
import warnings
from argparse import Namespace
from collections import Counter
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import imageio.v3 as imageio
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dreamer_bird.analysis.logs import title
from dreamer_bird.commands.arguments import Parser, as_path, check_output, whole
from dreamer_bird.errors import ConfigError
from dreamer_bird.training.driver import start_worker
from dreamer_bird.training.snapshot import (
    Snapshot,
    build_quietly,
    check_environment,
    play,
    read_snapshot,
)
from dreamer_bird.training.video import write_video
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays, replacing

if TYPE_CHECKING:
    from dreamer_bird.agent.agent import Agent

FIGURES = (".png", ".pdf", ".svg")
COLUMNS = 10  # of the figure, at most
FRAMES_PER_SECOND = 4  # of the GIF
# What an image and a step mean.
ALIKE = ("task", "obs", "env.size", "env.action_repeat", "env.shadows", "env.camera", "env.kwargs")
CENTRED = {"ha": "center", "va": "center"}
NAME = 16  # letters of a logdir that fit beside a row
# Inches: ten columns are seven wide, the width of a page's text.
CELL, GAP, SPLIT, LABELS, TOP = 0.57, 0.03, 0.08, 0.95, 0.42


class Window(NamedTuple):
    """The agent steps [start, start + context + horizon) of an episode; models see `context`."""

    start: int
    context: int
    horizon: int
    key: int  # the step that it is about, in the middle of the predicted ones

    @property
    def times(self) -> range:
        """All agent steps."""
        return range(self.start, self.start + self.context + self.horizon)


class Foresight(NamedTuple):
    """A model's images [T, H, W, 3], uint8, and their distance from the truth [T, H, W]."""

    name: str
    images: np.ndarray
    errors: np.ndarray  # mean over the colours, 0 to 1


def main(arguments: list[str]) -> int:
    """Draw truth and predictions of all runs into a figure, and a GIF beside it; return 0."""
    flags = _parse(arguments)
    snapshots = [read_snapshot(logdir) for logdir in flags.logdir]
    check_alike(snapshots)
    if "image" not in snapshots[0].spec.observation:
        raise ConfigError(f"--logdir {snapshots[0].logdir}: a run that does not observe images")
    first = snapshots[0].config
    if limit := first.env.time_limit:
        # What does not fit into the longest episode is refused before one is played.
        choose_window(flags, np.zeros(limit // first.env.action_repeat + 1))
    check_output("--out", flags.out, FIGURES)
    check_output("--out", flags.out.with_suffix(".gif"), (".gif",))
    with start_worker(first, "predict") as env:
        for snapshot in snapshots:
            check_environment(snapshot, env)
        agents = [build_quietly(snapshot) for snapshot in snapshots]
        episode = play(agents[0], env, flags.seed, 0)
    window = choose_window(flags, episode["reward"])
    before, after = episode["reward"][window.key - 1 : window.key + 1]
    print(f"agent step {window.key}, at which the reward goes from {before:.3g} to {after:.3g}")
    if flags.frame is None and before == after:
        warnings.warn("the reward never changes: --frame chooses the moment", stacklevel=2)
    named = zip(names(snapshots), agents, strict=True)
    foresights = [foresee(name, agent, episode, window, flags.seed) for name, agent in named]
    write_figures(flags.out, episode["image"], foresights, window)
    print(f"{flags.out} and {flags.out.with_suffix('.gif').name}")
    return 0


def check_alike(snapshots: list[Snapshot]) -> None:
    """Raise ConfigError unless one episode means the same to all runs."""
    first, *others = snapshots
    for key, other in product(ALIKE, others):
        ours, theirs = (each.config.flatten()[key] for each in (first, other))
        if theirs != ours:
            raise ConfigError(
                f"--logdir {other.logdir}: {key} {theirs}, but {ours} in {first.logdir}; "
                "all must have the same"
            )


def choose_window(flags: Namespace, reward: np.ndarray) -> Window:
    """Put a window at `--frame` or the largest change of reward [T]; ConfigError if none fits."""
    context, horizon, key, rows = flags.context, flags.horizon, flags.frame, len(reward)
    before = context + horizon // 2
    valid = range(before, rows - (horizon - 1 - horizon // 2))
    if not valid:
        asked = f"--context {context} and --horizon {horizon} are {context + horizon} frames"
        raise ConfigError(f"{asked}, and an episode has {rows}")
    if key is not None and key not in valid:
        raise ConfigError(
            f"--frame {key}: must be {valid[0]} to {valid[-1]}, where {context} frames of "
            f"context and {horizon} of predictions fit around it"
        )
    if key is None:
        changes = np.abs(np.diff(reward, prepend=0))
        changes[1] = 0  # no reward comes with a reset
        key = valid[int(np.argmax(changes[valid.start : valid.stop]))]
    return Window(key - before, context, horizon, key)


def foresee(name: str, agent: "Agent", episode: Arrays, window: Window, seed: int) -> Foresight:
    """Return reconstructions of the context, then open-loop predictions with the real actions."""
    rows = slice(window.times.start, window.times.stop)
    batch = {key: value[None, rows] for key, value in episode.items()}
    noise = seeds.stateless(seed, "predict")
    video = agent.predict(batch, window.context, noise).numpy()[0]
    truth, images, _ = np.split(video, 3, axis=2)
    errors = np.abs(images.astype(np.float32) - truth).mean(-1) / 255
    return Foresight(name, images, errors)


def names(snapshots: list[Snapshot]) -> list[str]:
    """Name each run by its method, those that share one by their seed or else their logdir too."""
    found = methods = [title(snapshot.config.variant) for snapshot in snapshots]
    by_seed = [f"seed {snapshot.config.seed}" for snapshot in snapshots]
    paths = [str(snapshot.logdir) for snapshot in snapshots]
    by_path = [path if len(path) <= NAME else f"…{path[1 - NAME :]}" for path in paths]
    for details in (by_seed, by_path):
        count = Counter(found)
        found = [
            f"{method}\n{detail}" if count[name] > 1 else name
            for name, method, detail in zip(found, methods, details, strict=True)
        ]
    return found


def write_figures(
    path: Path, truth: np.ndarray, foresights: list[Foresight], window: Window
) -> None:
    """Write some of the steps of a window side by side, and all of them as a GIF.

    `truth` [T, H, W, 3], uint8, is the whole episode. Folders on the way are made where needed.
    """
    times = window.times
    stride = -(-len(times) // COLUMNS)
    columns = [t for t in times if (t - window.key) % stride == 0]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        draw(truth, foresights, window, columns).savefig(file, format=path.suffix[1:], dpi=300)
    frames = []
    for t in times:
        png = io.BytesIO()
        draw(truth, foresights, window, [t]).savefig(png, dpi=200)
        frames.append(imageio.imread(png)[..., :3])
    write_video(path.with_suffix(".gif"), np.stack(frames), FRAMES_PER_SECOND)


def draw(
    truth: np.ndarray, foresights: list[Foresight], window: Window, columns: list[int]
) -> Figure:
    """Return a column of images for each agent step: the truth, then each model and its error.

    Errors are white for none and black for the largest of all models in the window.
    """
    at = [t - window.start for t in columns]
    rows = [("Truth", truth[columns])]
    for foresight in foresights:
        rows += [(foresight.name, foresight.images[at]), ("error", foresight.errors[at])]
    worst = max(foresight.errors.max() for foresight in foresights)
    seen = sum(t < window.start + window.context for t in columns)
    lefts = [LABELS + i * (CELL + GAP) + SPLIT * (i >= seen > 0) for i in range(len(columns))]
    tops = [TOP + i * (CELL + GAP) + SPLIT * ((i + 1) // 2) for i in range(len(rows))]
    width, height = lefts[-1] + CELL + GAP, tops[-1] + CELL + GAP
    figure = Figure(figsize=(width, height))
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))  # in inches
    page.set_autoscale_on(False)
    page.axis("off")
    for (name, images), top in zip(rows, tops, strict=True):
        method, _, detail = name.partition("\n")
        weight, middle = "normal" if name == "error" else "bold", top + CELL / 2
        style = {"x": LABELS - 0.08, "ha": "right", "va": "center"}
        page.text(y=middle - 0.07 * bool(detail), s=method, size=8, weight=weight, **style)
        page.text(y=middle + 0.07, s=detail, size=7, **style)
        for image, left in zip(images, lefts, strict=True):
            box = (left, left + CELL, top + CELL, top)
            page.imshow(image, "gray_r", vmin=0, vmax=worst, aspect="auto", extent=box)
            page.add_patch(Rectangle((left, top), CELL, CELL, fill=False, lw=0.4, ec="0.5"))
    for t, left in zip(columns, lefts, strict=True):
        weight = "bold" if t == window.key else "normal"
        page.text(left + CELL / 2, TOP - 0.09, f"t = {t}", size=7, weight=weight, **CENTRED)
    for name, group in (("context", lefts[:seen]), ("prediction", lefts[seen:])):
        if group:
            start, end = group[0], group[-1] + CELL
            page.plot([start, end], [TOP - 0.18] * 2, color="black", lw=0.8)
            page.text((start + end) / 2, TOP - 0.27, name, size=8, **CENTRED)
    return figure


def _parse(arguments: list[str]) -> Namespace:
    parser = Parser(
        "predict",
        "Draw what the world models of runs predict of one real episode.",
        "--logdir logdir/dmc_walker_walk/bird/0 --out prediction.png",
    )
    add = parser.add_argument
    logdirs = {"type": as_path, "nargs": "+", "action": "extend", "required": True}
    add("--logdir", **logdirs, help="runs; the policy of the first plays the episode")
    add(
        "--out",
        type=as_path,
        required=True,
        help="figure: .png, .pdf or .svg; a .gif goes beside it",
    )
    add("--frame", type=whole(0), help="key moment, in agent steps (largest change of reward)")
    add("--context", type=whole(1), default=5, help="frames that models see (5)")
    add("--horizon", type=whole(1), default=15, help="frames they predict (15)")
    add("--seed", type=whole(0), default=0, help="of the episode and of samples (0)")
    return parser.parse(arguments)
