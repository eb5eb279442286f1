"""Names in logs: one for what is one task, and task, method and seed as a path tells them."""

import re
from collections.abc import Sequence

from dreamer_bird.envs.tasks import GAMES, SUITE

UNKNOWN = "unknown"  # task of a log that neither a configuration nor the path tells

# Tasks on the bodies of the control suite that are published, beyond those that it registers.
_PUBLISHED = """
cheetah_jump cheetah_run_back cheetah_run_backwards cheetah_run_front cup_spin hopper_hop_backwards
humanoid_cmu_run humanoid_cmu_stand pendulum_spin reacher_three_easy reacher_three_hard
walker_run_backwards walker_walk_backwards
"""
_SUITE = {*(task.removeprefix("dmc_") for task in SUITE), *_PUBLISHED.split()}
_GAME_OF = {game.replace("_", ""): game for game in GAMES}
_ONE = "|".join(name.replace("_", "[-_/ ]") for name in sorted(_SUITE, key=len, reverse=True))
_DMC = r"(?:dmc|dm[-_]?control)(?:[-_](?:vision|proprio))?[-_/: ]"
_VERSION = r"-v\d+(?![A-Za-z0-9])"
# Within a name: a task of the suite, what gymnasium or ale-py registers, a name with a family.
_TASKS = (
    re.compile(r"^(?:dmc|dmlab|gym|atari(?:100k)?|procgen|mw|myo)[-_][a-z0-9_-]+$"),
    re.compile(
        rf"(?<![A-Za-z0-9])(?:gym_)?(?:[a-z]\w*[_:])?(?:ALE[-_/])?[A-Z][A-Za-z0-9]*{_VERSION}"
    ),
    re.compile(
        rf"(?<![a-z])(?:{_DMC})?(?:ball[-_]in[-_])?(?:{_ONE})(?:{_VERSION})?(?![a-z])", re.I
    ),
)
_SEED = re.compile(r"(?:^|[_\-. ])(?:seed|s)?[_\-]?(\d+)$")
# When a run began, as launchers and loggers write it, or seconds since 1970: no method, no seed.
_TIME = re.compile(
    r"(?:(?<=[_\-. ])|^)(?:20\d\d[-._]?\d\d[-._]?\d\d(?:[T_\-. ]*\d\d[-._:]?\d\d[-._:]?\d\d)?\w*"
    r"|\d\d[-:]\d\d[-:]\d\d|1\d{9})(?=$|[_\-. ])"
)
_PAIR = re.compile(
    r"(?:^|[,;& ]|_(?=[A-Za-z.]+=))\+*([A-Za-z][\w.]*)=((?:(?!_[A-Za-z.]+=)[^,;& ])*)"
)
_KEYS = {
    "task": {"task", "env", "environment", "env_id", "env_name", "task_name", "task_id"},
    "seed": {"seed", "random_seed", "rng_seed", "trial", "replicate"},
    "method": {"variant", "method", "algo", "alg", "algorithm", "agent"},
}


def canonical_task(name: str) -> str:
    """Return the one name of a task: dmc_cup_catch for dm_control/ball-in-cup-catch, and so on.

    A name of no spelling that is known stays as it is.
    """
    name = name.strip()
    bare = re.sub(f"^{_DMC}", "", name, flags=re.I)
    body = re.sub(f"{_VERSION}$", "", bare)
    snake = re.sub(r"[-/: ]+|(?<=[a-z0-9])(?=[A-Z])", "_", body).lower()
    snake = snake.removeprefix("ball_in_")
    if bare != name or (snake in _SUITE and not re.match(f"[A-Z].*{_VERSION}$", name)):
        return f"dmc_{snake}"
    game = re.sub(r"^atari(100k)?[-_/]|^ALE[-_/]|(NoFrameskip|Deterministic)(?=$|-v)", "", name)
    if game != name or body != name or name in GAMES:
        letters = re.sub(rf"{_VERSION}|[_ -]", "", game).lower()
        if letters in _GAME_OF:
            return f"atari_{_GAME_OF[letters]}"
    if re.search(f"{_VERSION}$", name) and not name.startswith("gym_"):
        return f"gym_{name}"
    return name


def names_of(path: Sequence[str], depth: int, stem: str = "") -> dict[str, str]:
    """Tell task, method and seed from the names of folders, and the stem of a file if it tells.

    They are in any order: `task/method/seed`, `method/task/seed`, `task123/x`, and Hydra's
    `task=...,variant=...,seed=...`. A name that is a task gives it, else one that holds a task; of
    several one of the suite, else a registered one, else the nearest to the file. A name that is a
    number, or ends in one behind a separator, gives the seed. The method is what is left of the
    name that holds the task and of those below it; if nothing is, the name above it. Without a
    task, the names from `depth` on are the method. Times at which runs began are no part of it. The
    task may be UNKNOWN, the seed is "0" without one.
    """
    pairs = [_split(name) for name in filter(None, (*path, stem))]
    names, told = [plain for plain, _ in pairs], {}
    for index, (_, found) in enumerate(pairs):
        told |= found | ({"at": index} if "task" in found else {})
    # By name: one that is a task, but for a seed, before one that holds one; then by pattern. The
    # first of these fits any name behind a family, so that a whole one tells nothing.
    matches = {
        index: (order > 0 and match[0] == _without_seed(name)[0], order, index, match)
        for order, pattern in enumerate(_TASKS)
        for index, name in enumerate(names)
        if (match := pattern.search(name))
    }
    if "task" in told:
        task, index = told["task"], told["at"]
    elif matches:
        *_, index, match = max(matches.values())
        task, name = match[0], names[index]
        names[index] = f"{name[: match.start()]}_{name[match.end() :]}"
    else:
        task, index = UNKNOWN, min(depth, max(len(names) - 1, 0))
    parts = [_without_seed(name.strip("_-. ")) for name in names[index:]]
    seeds = [seed for _, seed in parts if seed]
    methods = [rest for rest, _ in parts if rest]
    above = next((name for name in reversed(names[:index]) if name), UNKNOWN)
    seed = told.get("seed") or (seeds[-1] if seeds else "0")
    method = "/".join(methods) or above
    return {"task": canonical_task(task), "method": method, "seed": seed}


def _without_seed(name: str) -> tuple[str, str]:
    """Split a name into what is before a number at its end and the number, "" without one."""
    match = None if "=" in name.rpartition(",")[2] else _SEED.search(name)
    return (name[: match.start()].strip("_-. "), match[1]) if match else (name, "")


def _split(name: str) -> tuple[str, dict[str, str]]:
    """Return a name without times and `key=value` of task and seed, and these two."""
    told, kept = {}, []
    for key, value in _PAIR.findall(name):
        last = key.rpartition(".")[2].lower()
        kind = next((kind for kind, keys in _KEYS.items() if last in keys), None)
        if kind in ("task", "seed"):
            told[kind] = value
        elif value:
            kept.append(value if kind else f"{last}={value}")
    rest = _TIME.sub("", _PAIR.sub("", name).lstrip("+") if told or kept else name)
    if told or kept:  # what is left before them is the number of a job, if it is a number
        rest = rest.strip("_-., 0123456789")
    return ",".join(filter(None, [rest, *kept])), told
