"""Episodes: environments in workers, and the loop between them and a policy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.envs.make import environment
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

# From observations `[N, ...]` by name, the policy's own state (None at first) and the agent step
# within the episodes, to actions `[N, A]` and the next state.
Act = Callable[[Arrays, Any, int], tuple[np.ndarray, Any]]


def start_worker(config: Config, name: str, size: int | None = None) -> EnvWorker:
    """Start a worker of that name with the environment of a run; does not wait for it.

    Its images have `size` pixels a side, those of the run's settings if None.
    """
    settings = {**config.env, "size": size or config.env.size}
    make = environment(config.task, obs=config.obs, **settings)
    return EnvWorker(name, make, config.worker.timeout)


def collect_episodes(
    envs: Sequence[EnvWorker], act: Act, seeds: Sequence[int], watch: Stopwatch, film: bool = False
) -> list[Arrays]:
    """Return an episode of each of N environments, which take their agent steps together.

    An episode of T agent steps is arrays of T + 1 rows, in the layout of the replay, and
    `env_step`, environment steps since the reset; with `film` also `frame`, what a viewer sees,
    uint8 `[T + 1, H, W, 3]`, unless one of them cannot be rendered. An environment whose episode
    has ended waits for the others, and the actions for it are ignored.
    """
    with watch("render"):
        for env, seed in zip(envs, seeds, strict=True):
            env.reset_async(seed)
        idle = np.zeros(envs[0].spec.actions, np.float32)
        episodes = [[_row(env, env.reset_wait(), idle, 0.0, False, film)] for env in envs]
    observed = tuple(envs[0].spec.observation)
    playing, state, step = list(range(len(envs))), None, 0
    while playing:
        with watch("act"):
            obs = {key: np.stack([rows[-1][key] for rows in episodes]) for key in observed}
            actions, state = act(obs, state, step)
        with watch("render"):
            for number in playing:
                envs[number].step_async(actions[number])
            for number in tuple(playing):
                env, action = envs[number], actions[number]
                seen, reward, terminated, truncated = env.step_wait()
                episodes[number].append(_row(env, seen, action, reward, terminated, film))
                if terminated or truncated:
                    playing.remove(number)
        step += 1
    return [
        {key: np.stack([row[key] for row in rows]) for key in rows[0] if rows[-1][key] is not None}
        for rows in episodes
    ]


def _row(
    env: EnvWorker, obs: Arrays, action: np.ndarray, reward: float, terminated: bool, film: bool
) -> Arrays:
    row = {
        **obs,
        "action": action,
        "reward": np.float32(reward),
        # Nothing is gained after a terminal state; a time limit, in contrast, is not the end.
        "discount": np.float32(0.0 if terminated else 1.0),
        "env_step": env.env_step,
    }
    if film:
        row["frame"] = obs["image"] if "image" in obs else env.film()
    return row
