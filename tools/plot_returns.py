"""Draws the returns of one run: python tools/plot_returns.py RUN/metrics.jsonl picture.png"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def main(source: Path, target: Path) -> None:
    """Draw training and evaluation returns against environment steps."""
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for key, label, style in (
        (
            "train/return",
            "training, with exploration noise",
            {"color": "0.6", "marker": ".", "linestyle": "none"},
        ),
        ("test/return", "evaluation, mode of the policy", {"color": "C0", "marker": "o"}),
    ):
        points = [(line["step"], line[key]) for line in lines if key in line]
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xlabel="environment steps", ylabel="return of an episode", xlim=(0, None))
    figure.legend(loc="outside upper left", ncols=2, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
