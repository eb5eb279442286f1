"""Trained agents in programs of your own: `policy = load(logdir)`."""

from pathlib import Path
from typing import Any

import numpy as np

from dreamer_bird.config import Config
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import ConfigError
from dreamer_bird.training.driver import start_worker
from dreamer_bird.training.snapshot import build_agent, read_snapshot
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays


class Policy:
    """A trained policy that acts in any loop: `action, state = policy(obs, state)`."""

    def __init__(self, agent: Any, config: Config, spec: Spec, seed: int):
        """Take an agent with its weights, the settings of its run and what it observes."""
        self._agent, self._seed = agent, seed
        self.config = config
        self.spec = spec

    def __call__(
        self, obs: Arrays | np.ndarray, state: Any = None, explore: bool = False
    ) -> tuple[np.ndarray, Any]:
        """Return an action and the state to pass with the next observation.

        Args:
            obs: `image` uint8 `[H, W, 3]` or `state` float32 `[S]` or both, as the agent was
                trained with; an array alone if there is only one.
            state: what the last call returned; None where an episode begins.
            explore: sample and add noise, as in training, instead of taking the mode.

        Returns:
            The action `[A]`, in [-1, 1] or one-hot, and the next state, opaque. Both follow from
            the observations of the episode and the seed alone.

        Raises:
            ConfigError: an observation is missing, foreign, not finite, of another shape or dtype.
        """
        latent, step = state or (None, 0)
        if not isinstance(obs, dict):
            obs = {next(iter(self.spec.observation)): obs}
        noise = seeds.stateless(self._seed, "policy", step)
        shapes = self.spec.observation
        if obs.keys() != shapes.keys():
            raise ConfigError(f"observations {', '.join(obs)}: must be {', '.join(shapes)}")
        batch = {key: _checked(key, np.asarray(obs[key]), shapes[key])[None] for key in shapes}
        actions, latent = self._agent.act(batch, latent, noise, explore)
        return actions[0], (latent, step + 1)

    def start_env(self) -> EnvWorker:
        """Start a worker with the environment that the agent was trained in.

        It has `reset(seed)` and `step(action)`, and is a context manager. The process imports the
        script that calls this again, which needs its `if __name__ == "__main__":` for that. On
        Linux it ends with the thread that calls this.
        """
        return start_worker(self.config, "policy")


def load(logdir: str | Path, *, checkpoint: str | Path | None = None, seed: int = 0) -> Policy:
    """Load the policy of a run, from its newest readable checkpoint or from the one given.

    Nothing changes in the logdir, nor in this process: no setting, no global random generator. But
    TensorFlow is imported, so do not render with software OpenGL in it: `Policy.start_env` gives
    the environment a process of its own.

    Raises:
        ConfigError: there is no run or no readable checkpoint.
        CheckpointError: the checkpoint does not fit the settings.
    """
    snapshot = read_snapshot(Path(logdir), Path(checkpoint) if checkpoint else None)
    return Policy(build_agent(snapshot), snapshot.config, snapshot.spec, seed)


def _checked(key: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(np.uint8 if key == "image" else np.float32)
    casting = "safe" if key == "image" else "same_kind"
    if value.shape != shape or not np.can_cast(value.dtype, dtype, casting):
        raise ConfigError(
            f"observation {key} is {value.dtype} {value.shape}: must be {dtype} {shape}"
        )
    with np.errstate(over="ignore"):
        value = value.astype(dtype)
    if not np.isfinite(value).all():
        raise ConfigError(f"observation {key} holds numbers that are not finite in {dtype}")
    return value
