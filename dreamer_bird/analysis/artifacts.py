"""What lies beside the logs of runs: their last videos, and settings with their differences."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dreamer_bird.analysis import style
from dreamer_bird.analysis.logs import FILE, Log
from dreamer_bird.config import show

LARGEST_VIDEO = 4 * 2**20  # bytes
ALL_VIDEOS = 48 * 2**20  # bytes of all videos on a page, beyond which browsers get slow

_STEP = re.compile(r"(\d+)$")
_NAMED = {"task", "variant", "seed", "logdir"}  # told by the name of a run


class Video(NamedTuple):
    """A GIF as a data URI, and what it shows in words."""

    source: str
    caption: str


class Settings(NamedTuple):
    """The settings of all runs: rows of those that differ, and those that all share."""

    differing: list[str]
    # Name of the run, and for each differing setting its value and whether most have another one.
    rows: list[tuple[str, list[tuple[str, bool]]]]
    common: dict[str, str]
    without: int  # number of runs without saved settings


def run_title(log: Log) -> str:
    """Word a run, "BIRD on Hopper Stand, seed 0"."""
    return f"{style.title(log.method)} on {style.task_title(log.task)}, seed {log.seed}"


def find_videos(logs: Sequence[Log]) -> tuple[list[Video], list[str]]:
    """Return the last video of each run, and a line for each that is too large for the page."""
    videos, left_out, total = [], [], 0
    for log in logs:
        files = sorted(log.path.parent.glob("videos/*.gif"), key=_step)
        if not files or log.path.name != FILE:  # another file's folder may be anything
            continue
        size = files[-1].stat().st_size
        alone = size > LARGEST_VIDEO
        if alone or total + size > ALL_VIDEOS:
            limit, reason = (LARGEST_VIDEO, "a video") if alone else (ALL_VIDEOS, "all together")
            left_out.append(
                f"{run_title(log)}: left out, {size / 2**20:.1f} MiB; "
                f"at most {limit / 2**20:.0f} MiB for {reason} ({files[-1]})"
            )
            continue
        total += size
        videos.append(_video(log, files[-1]))
    return videos, left_out


def _step(path: Path) -> int:
    match = _STEP.search(path.stem)
    return int(match[1]) if match else -1


def _video(log: Log, path: Path) -> Video:
    when = f"at step {style.step_label(_step(path))}" if _step(path) >= 0 else path.stem
    source = f"data:image/gif;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return Video(source, f"{run_title(log)}, {when}")


def settings_table(logs: Sequence[Log]) -> Settings:
    """Return what differs between the settings of runs, and what they share."""
    runs = [log for log in logs if log.config]
    keys = list(dict.fromkeys(key for log in runs for key in log.config if key not in _NAMED))
    values = {key: [_text(log.config, key) for log in runs] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    usual = {key: Counter(values[key]).most_common(1)[0][0] for key in differing}
    rows = []
    for number, log in enumerate(runs):
        cells = [(values[key][number], values[key][number] != usual[key]) for key in differing]
        rows.append((run_title(log), cells))
    common = {key: values[key][0] for key in keys if key not in differing}
    return Settings(differing, rows, common, len(logs) - len(runs))


def _text(config: dict[str, object], key: str) -> str:
    value = config.get(key, "\N{EM DASH}")  # a run of a version without the setting
    return f"{value:g}" if isinstance(value, float) else show(value)
