"""How methods look in every figure, and the words on its axes and in its legend."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, cycle
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


# Shades of nine hues, of which Okabe and Ito's begin the first three: each has a contrast of 3:1
# with the report's light backgrounds and with its dark ones.
_HUES = [
    ("#0072B2", "#0492E5", "#0782CD"),  # blue
    ("#D55E00", "#B94C05", "#E66A33"),  # vermillion
    ("#009E73", "#057D57", "#088F66"),  # green
    ("#CB5FB5", "#A5459A", "#B852A8"),  # magenta
    ("#8F7A00", "#A88C0A", "#7C6B04"),  # ochre
    ("#745ACD", "#927AF0", "#836ADF"),  # violet
    ("#048B96", "#0A7A83", "#0A9CA8"),  # teal
    ("#6F9510", "#5A7702", "#678705"),  # olive
    ("#C23A55", "#E6607A", "#D44C66"),  # rose
]
_STROKES = [
    ((), "o"),
    ((5, 1.5), "s"),
    ((5, 1.5, 1, 1.5), "^"),
    ((2, 1), "D"),
    ((8, 2), "v"),
    ((3, 1, 1, 1, 1, 1), "P"),
    ((1, 1), "X"),
    ((8, 1.5, 2.5, 1.5), "<"),
    ((4, 3), "*"),
    ((8, 1.5, 1, 1.5, 1, 1.5), ">"),
    ((1, 2.5), "p"),
    ((3, 1, 3, 4), "d"),
]
_FIXED = {"BIRD": 0, "Dreamer": 1, "Soft-BIRD": 2}  # places of their own in both

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
    "reward_error": "error of predicted rewards (guessing: 1)",
    "image_error": "error of predicted images (guessing: 1)",
    "confidence_correlation": "rank correlation of confidence and error",
    "prior_ent": "prior entropy (nats)",
    "post_ent": "posterior entropy (nats)",
    "action_ent": "entropy of the action (nats)",
    "policy_entropy": "policy entropy (nats)",
    "confidence_mean": "confidence weight",
    "fps": "environment steps/s",
}


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for each method: its family's hue, and strokes that no other of a dozen has.

    Families are `BIRD`, `Dreamer` and `Soft-BIRD`, with places of their own, and others by name.
    """
    families = defaultdict(list)
    for name in sorted(set(methods), key=lambda name: (title(name), name)):
        families[_family(name)].append(name)
    unused = [_STROKES[place] for family, place in _FIXED.items() if family not in families]
    rest = cycle([*_STROKES[len(_FIXED) :], *unused])
    places = cycle(range(len(_FIXED), len(_HUES)))
    shades = [cycle(hue) for hue in _HUES]
    looks = {}
    for family, names in families.items():
        place = _FIXED[family] if family in _FIXED else next(places)
        own = [_STROKES[place]] if family in _FIXED else []
        for name, strokes in zip(names, chain(own, rest), strict=False):
            looks[name] = Style(next(shades[place]), *strokes)
    return looks


def _family(method: str) -> str:
    """Return what a method is a form of: "BIRD" for "BIRD (state)" and for "BIRD lr 1e-4"."""
    name, _, detail = title(method).partition(" ")
    return name if name in _FIXED or detail.startswith("(") else title(method)


def published_style(method: str) -> Style:
    """Return the style of a published score's horizontal line."""
    return _PUBLISHED.get(method, Style("#8C8C8C", (3, 1)))


def axis_title(key: str | None) -> str:
    """Return the words for a logged key, "model error" for model_error; without a key, returns."""
    return _AXIS_TITLES.get(key, key.replace("_", " ")) if key else "return"


def task_title(task: str) -> str:
    """Return a task's name as it is written: "Hopper Stand" for dmc_hopper_stand, gym's EnvId.

    The `module:factory` of an environment of one's own stays as it is.
    """
    if task.startswith("gym_") or ":" in task:
        return task.removeprefix("gym_")
    return task.removeprefix("dmc_").replace("_", " ").title()


def method_label(method: str, seeds: Iterable[int]) -> str:
    """Word a method and its numbers of seeds along its curves, "BIRD (2-3 seeds)"."""
    least, most = min(seeds), max(seeds)
    count = f"{most}" if least == most else f"{least}\N{EN DASH}{most}"
    return f"{title(method)} ({count} seed{'s' * (most > 1)})"


def spread_label(deviation: float, seeds: int) -> str:
    """Word what stands behind a mean: its deviation, which one seed has none of, and its seeds."""
    return f" ± {deviation:.3g}, seeds: {seeds}" if seeds > 1 else ", one seed"


def score_label(score: Score) -> str:
    """Word a published score's origin, "A3C, 100M steps, from states"."""
    sees = "" if score.observation == "pixels" else ", from states"
    return f"{title(score.method)}, {step_label(score.step)} steps{sees}"


def curve_label(curve: PublishedCurve) -> str:
    """Word a published curve's origin, "Dreamer, published (5 seeds)"."""
    return f"{title(curve.method)}, published ({curve.seeds.max()} seeds)"


def step_label(step: float) -> str:
    """Word a number of environment steps: 500, 100k, 1.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if step >= unit:
            return f"{step / unit:.4g}{name}"
    return f"{step:.4g}"
