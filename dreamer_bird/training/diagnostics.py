"""What a run measures of its agent: an episode of the policy's mode, and open-loop predictions."""

from collections.abc import Callable

import numpy as np

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.training.collector import Collector
from dreamer_bird.training.logger import Logger
from dreamer_bird.training.replay import Replay
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays
from dreamer_bird.utils.timer import Stopwatch

VIDEO_SEQUENCES = 6
VIDEO_CONTEXT = 5


class Diagnostics:
    """Measures the agent, each time as a function of weights, replay, seed and environment step."""

    def __init__(
        self,
        config: Config,
        agent: Agent,
        env: EnvWorker,
        replay: Replay,
        check: Callable[[], None],
    ):
        """Take what is measured; `check` is called before each step, and may raise Stopped."""
        self._config, self._agent, self._env, self._replay = config, agent, env, replay
        self.collector = Collector(config, agent, [env], check, Stopwatch())

    def measure(self, step: int, episodes: int, logger: Logger) -> Arrays:
        """Return an episode of the policy's mode; log it as a video, and predictions as errors."""
        films = self._env.can_render()
        act = self.collector.policy("evaluate", episodes, training=False)
        (episode,) = self.collector.play(act, "evaluation environment", [step], films)
        if films:
            logger.video(step, "evaluation", episode["frame"], save=True)
        if self._replay.holds_a_sequence:  # what is predicted ends with the episode
            if "image" in self._env.spec.observation:
                logger.video(step, "open_loop", self._open_loop_video(step))
            self._log_model_error(step, logger)
        return episode

    def _open_loop_video(self, step: int) -> np.ndarray:
        batch, seed = self._sample("video", step, VIDEO_SEQUENCES)
        context = min(VIDEO_CONTEXT, self._config.replay.length // 2)
        video = self._agent.predict(batch, context, seed).numpy()  # [B, T, H, 3 W, 3]
        return np.concatenate(video, axis=1)

    def _log_model_error(self, step: int, logger: Logger) -> None:
        batch, seed = self._sample("model error", step, self._config.replay.batch)
        errors = self._agent.model_error(batch, seed).numpy()  # [H], agent steps ahead
        logger.scalars(step, {"model_error": errors.mean()})
        ahead = {f"model_error/{h:02d}": error for h, error in enumerate(errors, 1)}
        logger.beside(step, ahead)

    def _sample(self, purpose: str, step: int, size: int) -> tuple[Arrays, np.ndarray]:
        """Return sequences for a purpose, and a seed."""
        rng = seeds.generator(self._config.seed, purpose, step)
        return self._replay.sample(size, rng), seeds.stateless(self._config.seed, purpose, step)
