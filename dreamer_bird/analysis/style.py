"""How methods look in every figure, and the words on its axes and in its legend."""

from collections.abc import Iterable
from itertools import cycle
from typing import NamedTuple

from dreamer_bird.analysis.baselines import PublishedCurve, Score
from dreamer_bird.analysis.logs import title


class Style(NamedTuple):
    """A line: told from the others by colour, by dashes and by markers alike."""

    colour: str
    dashes: tuple[float, ...]  # lengths of strokes and gaps in line widths, () for a solid line
    marker: str = ""  # in Matplotlib's letters

    @property
    def strokes(self) -> str:
        """The dashes of a line two pixels wide, as SVG and plotly.js take them."""
        return ",".join(f"{2 * length:g}px" for length in self.dashes) or "solid"


# Okabe and Ito's colours, without those too faint on white and the black of the text.
_PALETTE = [
    Style("#0072B2", (), "o"),
    Style("#D55E00", (5, 1.5), "s"),
    Style("#009E73", (5, 1.5, 1, 1.5), "^"),
    Style("#CC79A7", (2, 1), "D"),
    Style("#56B4E9", (8, 2), "v"),
    Style("#E69F00", (3, 1, 1, 1, 1, 1), "P"),
]
# By the names that are shown; every other method takes what the palette has left.
_FIXED = {"BIRD": _PALETTE[0], "Dreamer": _PALETTE[1], "Soft-BIRD": _PALETTE[2]}

_PUBLISHED_NAMES = {"d4pg": "D4PG", "a3c": "A3C", "planet": "PlaNet", "slac": "SLAC"}
# Lines behind the curves, in greys that show on white and on black.
_PUBLISHED = {
    "d4pg": Style("#6B6B6B", (6, 2)),
    "a3c": Style("#8C8C8C", (1, 1.5)),
    "planet": Style("#6B6B6B", (6, 1.5, 1, 1.5)),
    "slac": Style("#8C8C8C", (10, 3)),
}
PUBLISHED_CURVE = Style("#808080", ())

_AXIS_TITLES = {
    "test/return": "evaluation return",
    "train/return": "training return",
    "div": "KL (nats), at least the free",
    "kl": "KL (nats)",
    "prior_ent": "prior entropy (nats)",
    "post_ent": "posterior entropy (nats)",
    "action_ent": "policy entropy (nats)",
    "policy_entropy": "policy entropy (nats)",
    "confidence_mean": "confidence weight",
    "fps": "environment steps/s",
}


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for each method: fixed for known ones, in alphabetical order for others."""
    rest = cycle([style for style in _PALETTE if style not in _FIXED.values()])
    return {name: _FIXED.get(title(name)) or next(rest) for name in sorted(set(methods))}


def published_style(method: str) -> Style:
    """Return the style of a published score's horizontal line."""
    return _PUBLISHED.get(method, Style("#8C8C8C", (3, 1)))


def axis_title(key: str | None) -> str:
    """Return the words for a logged key, "model error" for model_error; without a key, returns."""
    return _AXIS_TITLES.get(key, key.replace("_", " ")) if key else "return"


def task_title(task: str) -> str:
    """Return a task's name as it is written, "Hopper Stand" for dmc_hopper_stand."""
    return task.removeprefix("dmc_").replace("_", " ").title()


def method_label(method: str, seeds: Iterable[int]) -> str:
    """Word a method and its numbers of seeds on the tasks, "BIRD (2-3 seeds)"."""
    least, most = min(seeds), max(seeds)
    count = f"{most}" if least == most else f"{least}\N{EN DASH}{most}"
    return f"{title(method)} ({count} seed{'s' * (most > 1)})"


def score_label(score: Score) -> str:
    """Word a published score's origin, "A3C, 100M steps, from states"."""
    name = _PUBLISHED_NAMES.get(score.method, title(score.method))
    sees = "" if score.observation == "pixels" else ", from states"
    return f"{name}, {step_label(score.step)} steps{sees}"


def curve_label(curve: PublishedCurve) -> str:
    """Word a published curve's origin, "Dreamer, published (5 seeds)"."""
    return f"{title(curve.method)}, published ({curve.seeds.max()} seeds)"


def step_label(step: float) -> str:
    """Word a number of environment steps: 500, 100k, 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if step >= unit:
            return f"{step / unit:g}{name}"
    return f"{step:g}"
