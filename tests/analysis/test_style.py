"""How methods look, and words on axes and in legends."""

import colorsys
import re
from itertools import chain, combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from dreamer_bird.analysis import style
from dreamer_bird.analysis.baselines import published_scores

DETAILS = ("", " (state)", " (both)", " (32x32)", " (both, 96x96)", " lr 1e-4")


DOZENS = [
    [name + detail for name in ("bird", "dreamer", "soft_bird") for detail in DETAILS[:4]],
    [name + detail for name in ("bird", "mine") for detail in DETAILS if name + detail != "bird"]
    + ["soft_bird (state)"],
    [f"bird (take {number})" for number in range(12)],
    [*"abcdefghi", "bird", "BIRD", "d4pg"],
]


def hue(look):
    red, green, blue = matplotlib.colors.to_rgb(look.colour)
    return colorsys.rgb_to_hsv(red, green, blue)[0]


def apart(one, other):
    """How far two hues lie apart on the circle, of which half is 0.5."""
    return abs((one - other + 0.5) % 1 - 0.5)


@pytest.mark.parametrize("names", DOZENS)
def test_a_dozen_methods_are_told_apart_without_colour(names):
    looks = style.styles(names)
    assert looks.keys() == set(names) and len(names) == 12
    for traits in ("dashes", "marker", "strokes"):
        assert len({getattr(look, traits) for look in looks.values()}) == 12


def test_known_methods_keep_their_look_and_others_look_otherwise():
    names = ["bird", "dreamer", "soft_bird", "mine", "yours", "theirs"]
    looks = style.styles(names)
    for traits in zip(*looks.values(), strict=True):
        assert len(set(traits)) == len(names)
    for names in DOZENS[:3]:
        among = style.styles([*names, "bird", "dreamer", "soft_bird"])
        assert all(among[name] == looks[name] for name in ("bird", "dreamer", "soft_bird"))
    assert style.styles(["dreamer"]) == {"dreamer": looks["dreamer"]}
    # Where all runs observe the state, there is nothing to be told from.
    assert style.styles(["dreamer (state)"]) == {"dreamer (state)": looks["dreamer"]}


def test_forms_of_a_method_share_its_hue_and_no_two_of_them_a_colour():
    families = ("bird", "dreamer", "soft_bird", "mine")
    names = {family: [family + detail for detail in DETAILS[:3]] for family in families}
    looks = style.styles(chain(*names.values()))
    hues = {family: hue(looks[family]) for family in families}
    for family, forms in names.items():
        assert max(apart(hue(looks[form]), hues[family]) for form in forms) < 0.03
        assert len({looks[form].colour for form in forms}) == 3
    assert min(apart(hues[a], hues[b]) for a, b in combinations(families, 2)) > 0.1
    looks = style.styles(["BIRD (32x32)", "soft_bird (state)", "Dreamer lr 1e-4"])
    assert [round(hue(look), 2) for look in looks.values()] == [
        round(hues[family], 2) for family in ("bird", "dreamer", "soft_bird")
    ]


def luminance(colour):
    """Of WCAG 2, from 0 for black to 1 for white."""
    parts = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_every_colour_is_seen_on_light_and_on_dark():
    template = Path(style.__file__).with_name("report.html.jinja").read_text()
    grounds = re.findall(r"--(?:paper|raised): (#\w+);", template)
    assert len(grounds) == 4  # those of the light page and of the dark one
    names = [f"{number} ({form})" for number in range(6) for form in "abc"]
    names += [f"{name} ({form})" for name in ("bird", "dreamer", "soft_bird") for form in "abc"]
    colours = {look.colour for look in style.styles(names).values()}
    assert len(colours) == 27  # all that there are
    methods = {score.method for score in published_scores()}
    colours |= {style.published_style(method).colour for method in (*methods, "another")}
    for colour in (*colours, style.PUBLISHED_CURVE.colour):
        for ground in (*grounds, "white", "black"):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, ground)


@pytest.mark.parametrize(
    ("step", "text"), [(0, "0"), (500, "500"), (1500, "1.5k"), (1e5, "100k"), (2.5e6, "2.5M")]
)
def test_steps_in_words(step, text):
    assert style.step_label(step) == text


@pytest.mark.parametrize(
    ("task", "title"),
    [
        *(("dmc_hopper_stand", "Hopper Stand"), ("gym_CartPole-v1", "CartPole-v1")),
        ("my_module:Point", "my_module:Point"),
    ],
)
def test_titles_of_tasks_are_their_names(task, title):
    assert style.task_title(task) == title
