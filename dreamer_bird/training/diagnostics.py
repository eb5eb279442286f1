"""What a run measures of its agent: an episode of the policy's mode, and open-loop predictions."""

import numpy as np
from scipy.stats import spearmanr

from dreamer_bird.agent.agent import Agent
from dreamer_bird.config import Config
from dreamer_bird.training.collector import Collector
from dreamer_bird.training.logger import Logger
from dreamer_bird.training.replay import Replay
from dreamer_bird.utils import seeds
from dreamer_bird.utils.files import Arrays

VIDEO_SEQUENCES = 6
VIDEO_CONTEXT = 5
ERROR_HORIZON = 15  # agent steps that open-loop predictions look ahead, at most
NEW_STEPS = 500  # agent steps of an evaluation episode that are predicted, at most


class Diagnostics:
    """Measures the agent, each time as a function of weights, replay, seed and environment step."""

    def __init__(self, config: Config, agent: Agent, replay: Replay, collector: Collector):
        """Take what is measured, and what plays the episodes."""
        self._config, self._agent, self._replay = config, agent, replay
        self.collector = collector

    def measure(self, step: int, episodes: int, logger: Logger) -> Arrays:
        """Return an episode of the policy's mode; log it as a video, and predictions as errors."""
        episode = self.collector.evaluate(episodes, step)
        if "frame" in episode:
            logger.video(step, "evaluation", lambda: episode["frame"], save=True)
        if self._replay.holds_a_sequence:  # what is predicted ends with the episode
            if "image" in episode:
                logger.video(step, "open_loop", lambda: self._open_loop_video(step))
            self._log_predictions(step, episode, logger)
        return episode

    def _open_loop_video(self, step: int) -> np.ndarray:
        batch, seed = self._sample("video", step, VIDEO_SEQUENCES)
        context = min(VIDEO_CONTEXT, self._config.replay.length // 2)
        video = self._agent.predict(batch, context, seed).numpy()  # [B, T, H, 3 W, 3]
        return np.concatenate(video, axis=1)

    def _log_predictions(self, step: int, episode: Arrays, logger: Logger) -> None:
        """Log how well the model predicts what it has learned from, and this new episode."""
        batch, seed = self._sample("model error", step, self._config.replay.batch)
        found = self._open_loop(batch, seed)
        figures = errors(found)
        length = self._config.replay.length
        steps = min(len(episode["reward"]), max(NEW_STEPS, length)) // length * length
        if steps:  # else the episode is shorter than a sequence
            new = self._open_loop({key: episode[key][None, :steps] for key in batch}, seed)
            figures |= {f"{key}_new": value for key, value in errors(new).items()}
            if "imagined_reward" in new:
                figures["imagined_return"] = new["imagined_reward"].sum(1).mean()
            figures["followed_return"] = new["true_reward"].sum(1).mean()
        logger.scalars(step, figures)
        ahead = enumerate(found["latent_error"].mean(0), 1)
        logger.beside(step, {f"model_error/{h:02d}": error for h, error in ahead})

    def _open_loop(self, batch: Arrays, seed: np.ndarray) -> Arrays:
        """Predict as far as the sequences learned from allow, a longer episode too."""
        horizon = min(ERROR_HORIZON, self._config.replay.length - 1)
        found = self._agent.open_loop(batch, horizon, seed)
        return {key: value.numpy() for key, value in found.items()}

    def _sample(self, purpose: str, step: int, size: int) -> tuple[Arrays, np.ndarray]:
        """Return sequences for a purpose, and a seed."""
        rng = seeds.generator(self._config.seed, purpose, step)
        return self._replay.sample(size, rng), seeds.stateless(self._config.seed, purpose, step)


def errors(found: Arrays) -> dict[str, float]:
    """Return figures of open-loop predictions, of which `Agent.open_loop` finds the parts.

    model_error: mean distance of latent states. reward_error, image_error: squared errors as a
    share of those of guessing the mean; none where guessing is right. confidence_correlation:
    Spearman's, between the confidence in each prediction and its latent error; -1 where the model
    knows when it errs.
    """
    distance = found["latent_error"].mean(1)
    figures = {"model_error": distance.mean()}
    truth = found["true_reward"]
    sums = {"reward_error": (np.square(found["reward"] - truth), np.square(truth - truth.mean()))}
    if "image_error" in found:
        sums["image_error"] = found["image_error"], found["image_guess"]
    for key, (error, guess) in sums.items():
        if guess.any():
            figures[key] = error.sum() / guess.sum()
    if np.ptp(distance) and np.ptp(found["confidence"]):
        figures["confidence_correlation"] = spearmanr(found["confidence"], distance).statistic
    return figures
