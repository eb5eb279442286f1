"""Replay: whole episodes, first in first out, in memory and on disk.

An episode of N agent steps is a dict of arrays with N + 1 rows: observations (`image` uint8,
`state`), `action`, `reward` and `discount`. Row 0 is the reset, and `action[t]` led to the
observations at t, with which `reward[t]` came.
"""

import re
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from dreamer_bird.errors import RunError
from dreamer_bird.utils.files import Arrays, DamagedFileError, load_arrays, save_arrays, set_aside

# What an episode may hold, and with how many dimensions.
RANKS = {"image": 4, "state": 2, "action": 2, "reward": 1, "discount": 1}
T = TypeVar("T")
_NAME = re.compile(r"\d{6,}-\d+")  # number and agent steps


class EmptyReplayError(RunError):
    """Nothing to draw from: episodes are missing, or all too short."""


class Replay:
    """First-in-first-out store of episodes, from which training sequences are drawn."""

    def __init__(
        self,
        directory: Path,
        capacity: int | None,
        length: int,
        observations: Iterable[str] = ("image",),
    ):
        """Take where episodes are kept, the agent steps held (None: all) and drawn at once, and
        the names of the observations.
        """
        self._directory = directory
        self._capacity = capacity
        self._length = length
        self._keys = (*observations, "action", "reward", "discount")
        self._episodes: deque[tuple[str, Arrays]] = deque()
        self.steps = 0  # agent steps held
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def names(self) -> list[str]:
        """Names of the episodes held, oldest first."""
        return [name for name, _ in self._episodes]

    @property
    def holds_a_sequence(self) -> bool:
        """Whether an episode is long enough to draw from."""
        return any(len(episode["reward"]) >= self._length for _, episode in self._episodes)

    def add(self, name: str, episode: Arrays) -> None:
        """Write an episode to disk, then hold it and let go of the oldest beyond the capacity.

        Of these as many stay as a sequence needs.
        """
        save_arrays(self._directory / f"{name}.npz", episode, compress=True)
        self._hold(name, episode)

    def load(self, names: list[str]) -> None:
        """Hold episodes written before, oldest first; set aside, with a warning, damaged ones."""
        for name in names:
            path = self._directory / f"{name}.npz"
            if not path.exists():
                warnings.warn(f"{path} is missing; training goes on without it", stacklevel=2)
                continue
            try:
                self._hold(name, self._checked(path))
            except DamagedFileError as error:
                where = set_aside(path)
                warnings.warn(f"{error}; it is kept as {where}, and training goes on", stacklevel=2)

    def remove_files(self, but: Collection[str]) -> None:
        """Remove the files of episodes that are neither held nor named."""
        named = {*but, *self.names}
        for path in self._directory.glob("*.npz"):
            if path.stem not in named and _NAME.fullmatch(path.stem):
                path.unlink()

    def sample(self, batch: int, rng: np.random.Generator) -> Arrays:
        """Return `batch` sequences `[B, T, ...]`, uniform over all starts at which one fits."""
        episodes = [episode for _, episode in self._episodes]
        starts = [max(0, len(episode["reward"]) - self._length + 1) for episode in episodes]
        if not any(starts):
            raise EmptyReplayError(
                f"no episode in {self._directory} holds a sequence of {self._length} agent steps"
            )
        ends = np.cumsum(starts)
        picks = rng.integers(ends[-1], size=batch)
        chosen = np.searchsorted(ends, picks, side="right")
        first = picks - (ends - starts)[chosen]
        return self._stack(
            {key: episodes[index][key][start : start + self._length] for key in self._keys}
            for index, start in zip(chosen, first, strict=True)
        )

    def sample_joined(self, batch: int, rng: np.random.Generator) -> Arrays:
        """Return `batch` sequences `[B, T, ...]` of all episodes, laid one after the other.

        Uniform over all starts. `first`, bool, says at which steps another episode begins: so
        that episodes shorter than a sequence are drawn too, and how they ended.
        """
        ends = np.cumsum([len(episode["reward"]) for _, episode in self._episodes])
        if not ends.size or ends[-1] < self._length:
            raise EmptyReplayError(
                f"the episodes in {self._directory} do not make {self._length} agent steps together"
            )
        picks = rng.integers(ends[-1] - self._length + 1, size=batch)
        return self._stack(self._stretch(start, ends) for start in picks)

    def _stretch(self, start: int, ends: np.ndarray) -> Arrays:
        """Return the rows of a sequence from a start among the rows of all episodes."""
        pieces, rows = [], np.arange(start, start + self._length)
        episodes = np.searchsorted(ends, rows, side="right")
        for index in np.unique(episodes):
            episode = self._episodes[index][1]
            times = rows[episodes == index] - ends[index] + len(episode["reward"])
            piece = {key: episode[key][times[0] : times[-1] + 1] for key in self._keys}
            pieces.append(piece | {"first": times == 0})
        return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}

    def _stack(self, sequences: Iterable[Arrays]) -> Arrays:
        sequences = list(sequences)
        return {key: np.stack([rows[key] for rows in sequences]) for key in sequences[0]}

    def _hold(self, name: str, episode: Arrays) -> None:
        self._episodes.append((name, episode))
        self.steps += len(episode["reward"]) - 1
        while self._capacity is not None and self.steps > self._capacity:
            oldest = len(self._episodes[0][1]["reward"]) - 1
            if self.steps - oldest < self._length:  # what is left must still make a sequence
                break
            self._episodes.popleft()
            self.steps -= oldest

    def _checked(self, path: Path) -> Arrays:
        episode = load_arrays(path)
        if not episode.keys() >= set(self._keys):
            raise DamagedFileError(f"{path} does not hold an episode")
        episode = {key: episode[key] for key in self._keys}
        if any(value.ndim != RANKS[key] for key, value in episode.items()):
            raise DamagedFileError(f"{path} holds arrays of other shapes")
        if any((value.dtype == np.uint8) != (key == "image") for key, value in episode.items()):
            raise DamagedFileError(f"{path} holds arrays of other types")
        model = self._episodes[0][1] if self._episodes else episode
        same_size = all(episode[key].shape[1:] == model[key].shape[1:] for key in self._keys)
        if not same_size or len({len(rows) for rows in episode.values()}) != 1:
            raise DamagedFileError(f"{path} holds arrays that do not fit together")
        return episode


def prefetched(make: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """Yield `make(number)` for each number, made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = (thread.submit(make, number) for number in numbers)
        for ready, _ in pairwise(chain(coming, [None])):  # by now the next one is being made
            yield ready.result()
