"""Atari games, beside the emulator itself."""

import gymnasium
import numpy as np
import pytest
from PIL import Image

from dreamer_bird.envs.make import environment
from dreamer_bird.envs.spaces import ENV_STEPS, OneHot, Spec, random_action
from dreamer_bird.envs.tasks import GAMES
from dreamer_bird.envs.worker import EnvWorker
from dreamer_bird.errors import ConfigError

ale_py = pytest.importorskip("ale_py")
from dreamer_bird.envs.atari import Atari  # noqa: E402


def emulator(game, seed, noops):
    env = ale_py.AtariEnv(game, frameskip=1, repeat_action_probability=0.25)
    image, _ = env.reset(seed=seed)
    for _ in range(noops):
        image = env.step(0)[0]
    return env, image


def noops_of(seed):
    return int(gymnasium.utils.seeding.np_random(seed)[0].integers(1, 31))


@pytest.mark.parametrize("game", ["pong", "space_invaders"])
def test_steps_are_those_of_the_emulator_with_the_last_two_frames_pooled(game):
    ours = Atari(game)
    theirs, image = emulator(game, 7, noops_of(7))
    np.testing.assert_array_equal(ours.reset(seed=7)[0], image)
    rng, pooled, total = np.random.default_rng(0), 0, 0.0
    for _ in range(100):
        action = int(rng.integers(ours.action_space.n))
        steps = [theirs.step(action) for _ in range(4)]
        image, reward, *ends, _ = ours.step(action)
        np.testing.assert_array_equal(image, np.maximum(steps[2][0], steps[3][0]))
        assert (reward, ends) == (sum(step[1] for step in steps), [False, False])
        pooled += np.any(image != steps[3][0])
        total += abs(reward)
    assert pooled > 10
    assert total > 0


def test_noops_and_sticky_actions_follow_from_the_seed():
    assert {noops_of(seed) for seed in range(200)} == set(range(1, 31))
    env, fresh = Atari("pong"), Atari("pong")
    env.reset(seed=1)
    env.step(2)

    def play(env):
        return [env.reset(seed=3)[0], *(env.step(2 + t % 2)[0] for t in range(20))]

    np.testing.assert_array_equal(play(env), play(fresh))


def test_a_life_lost_is_not_the_end_and_the_last_one_is():
    env = Atari("breakout", action_repeat=10)
    env.reset(seed=0)
    lives, ended = set(), False
    for _ in range(2000):
        _, _, ended, truncated, info = env.step(1)
        lives.add(info["lives"])
        assert not truncated
        if ended:
            break
    assert ended
    assert lives == {5, 4, 3, 2, 1, 0}


def steps_of_a_game(game, seed):
    """Yield the steps of the emulator until the game is over, with one action all the time."""
    env, _ = emulator(game, seed, noops_of(seed))
    ended = False
    while not ended:
        step = env.step(1)
        ended = step[2]
        yield step


@pytest.mark.parametrize("last", [1, 2])
def test_a_game_that_ends_within_an_agent_step_pools_the_frames_there_are(last):
    steps = list(steps_of_a_game("assault", 0))
    images, rewards = zip(*(step[:2] for step in steps), strict=True)
    env = Atari("assault", action_repeat=len(steps) - last)
    env.reset(seed=0)
    assert env.step(1)[1:4] == (sum(rewards[:-last]), False, False)
    image, reward, terminated, truncated, info = env.step(1)
    assert info[ENV_STEPS] == last
    pooled = [np.max(images[-count:], axis=0) for count in (1, 2, 3)]
    np.testing.assert_array_equal(image, pooled[last - 1])
    assert np.any(pooled[0] != pooled[1]) and np.any(pooled[1] != pooled[2])
    assert (reward, terminated, truncated) == (sum(rewards[-last:]), True, False)


def test_a_repeat_of_one_pools_nothing():
    ours = Atari("pong", action_repeat=1)
    theirs, _ = emulator("pong", 4, noops_of(4))
    ours.reset(seed=4)
    for _ in range(10):
        np.testing.assert_array_equal(ours.step(3)[0], theirs.step(3)[0])


def test_the_task_is_64_by_64_in_colour_with_the_minimal_actions():
    with EnvWorker("probe", environment("atari_pong", time_limit=40)) as env:
        assert env.spec == Spec({"image": (64, 64, 3)}, 6, discrete=True)
        assert env.facts.action_space == OneHot(6)
        image = env.reset(7)["image"]
        frame = emulator("pong", 7, noops_of(7))[1]
        np.testing.assert_array_equal(
            image, Image.fromarray(frame).resize((64, 64), Image.Resampling.BILINEAR)
        )
        assert np.any(image[..., 0] != image[..., 1])
        rng = np.random.default_rng(0)
        ends = [env.step(random_action(env.facts.action_space, rng))[2:] for _ in range(10)]
        assert ends == [(False, False)] * 9 + [(False, True)]


def test_a_game_is_whole_by_default_and_takes_arguments_of_the_emulator():
    make = environment("atari_pong", kwargs="{obs_type: grayscale, difficulty: 1}")
    with EnvWorker("probe", make) as env:
        assert env.facts.time_limit == 108_000
        image = env.reset(7)["image"]
        assert np.all(image == image[..., :1]) and image.std() > 5
    make = environment("atari_pong", kwargs="frameskip: 2")
    with EnvWorker("probe", make) as env, pytest.raises(ConfigError, match="'frameskip'"):
        env.reset(0)


def test_memory_is_that_of_the_last_frame_and_not_pooled():
    game = Atari("pong", obs_type="ram")
    game.reset(seed=7)
    seen = [game.step(action % 6)[0] for action in range(60)]
    game.reset(seed=7)
    for action, memory in enumerate(seen):
        game.step(action % 6)
        np.testing.assert_array_equal(memory, game.env.ale.getRAM())


def test_there_is_no_state():
    words = r"^atari_pong: --obs state: observes an image and nothing else: --obs pixels$"
    make = environment("atari_pong", obs="state")
    with EnvWorker("probe", make) as env, pytest.raises(ConfigError, match=words):
        env.reset(0)


def test_the_games_are_those_that_gymnasium_registers():
    ids = {key for key in gymnasium.registry if key.startswith("ALE/") and key.endswith("-v5")}
    assert {f"ALE/{game.title().replace('_', '')}-v5" for game in GAMES} == ids
