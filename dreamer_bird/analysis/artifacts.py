"""What lies beside the logs of runs: their last videos, and settings with their differences."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dreamer_bird.analysis import style
from dreamer_bird.analysis.logs import FILE, Log
from dreamer_bird.config import show

LARGEST_VIDEO = 4 * 2**20  # bytes
ALL_VIDEOS = 48 * 2**20  # bytes of all videos on a page, beyond which browsers get slow

_NAMED = {"task", "variant", "seed", "logdir"}  # told by the name of a run


def run_title(log: Log) -> str:
    """Word a run, "BIRD on Hopper Stand, seed 0"."""
    return f"{style.title(log.method)} on {style.task_title(log.task)}, seed {log.seed}"


def find_videos(logs: Sequence[Log]) -> tuple[list[dict], list[str]]:
    """Return the last video of each run, and a line for each that is too large for the page.

    A video has a `source`, the GIF as a data URI, and a `caption`.
    """
    videos, left_out, total = [], [], 0
    for log in logs:
        file = max(log.path.parent.glob("videos/*.gif"), key=_step, default=None)
        if not file or log.path.name != FILE:  # another file's folder may be anything
            continue
        size = file.stat().st_size
        alone = size > LARGEST_VIDEO
        if alone or total + size > ALL_VIDEOS:
            limit, reason = (LARGEST_VIDEO, "a video") if alone else (ALL_VIDEOS, "all together")
            left_out.append(
                f"{run_title(log)}: left out, {size / 2**20:.1f} MiB; "
                f"at most {limit / 2**20:.0f} MiB for {reason} ({file})"
            )
            continue
        total += size
        when = f"at step {style.step_label(_step(file))}" if _step(file) >= 0 else file.stem
        source = f"data:image/gif;base64,{base64.b64encode(file.read_bytes()).decode()}"
        videos.append({"source": source, "caption": f"{run_title(log)}, {when}"})
    return videos, left_out


def _step(path: Path) -> int:
    match = re.search(r"(\d+)$", path.stem)
    return int(match[1]) if match else -1


def settings_table(logs: Sequence[Log]) -> dict:
    """Return what differs between the settings of runs, and what they share.

    `differing`: names; `rows`: title of a run, and for each of them its value and whether most have
    another one; `common`: values by name; `without`: the number of runs without saved settings.
    """
    runs = [log for log in logs if log.config]
    keys = list(dict.fromkeys(key for log in runs for key in log.config if key not in _NAMED))
    values = {key: [_text(log.config, key) for log in runs] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    counts = {key: Counter(values[key]) for key in differing}
    rows = []
    for number, log in enumerate(runs):
        texts = {key: values[key][number] for key in differing}
        cells = [(text, 2 * counts[key][text] < len(runs)) for key, text in texts.items()]
        rows.append((run_title(log), cells))
    common = {key: values[key][0] for key in keys if key not in differing}
    without = len(logs) - len(runs)
    return {"differing": differing, "rows": rows, "common": common, "without": without}


def _text(config: dict[str, object], key: str) -> str:
    value = config.get(key, "\N{EM DASH}")  # a run of a version without the setting
    return f"{value:g}" if isinstance(value, float) else show(value)
