"""Names of tasks, and the families that they belong to. Nothing here imports a simulator."""

import os
import re
import sys
from importlib.machinery import PathFinder

from dreamer_bird.envs.custom import FACTORIES
from dreamer_bird.errors import nearest

# What `obs` selects: `image` is uint8 [size, size, 3], `state` a float32 vector.
OBSERVATIONS = {"pixels": ("image",), "state": ("state",), "both": ("image", "state")}
_TASKS = """
dmc_acrobot_swingup dmc_cartpole_balance dmc_cartpole_balance_sparse dmc_cartpole_swingup
dmc_cartpole_swingup_sparse dmc_cheetah_run dmc_cup_catch dmc_finger_spin dmc_finger_turn_easy
dmc_finger_turn_hard dmc_hopper_hop dmc_hopper_stand dmc_pendulum_swingup dmc_quadruped_run
dmc_quadruped_walk dmc_reacher_easy dmc_reacher_hard dmc_walker_run dmc_walker_stand
dmc_walker_walk
"""
TASKS = tuple(_TASKS.split())  # those of Dreamer's paper
_OTHERS = """
dmc_acrobot_swingup_sparse dmc_ball_in_cup_catch dmc_cartpole_three_poles dmc_cartpole_two_poles
dmc_dog_fetch dmc_dog_run dmc_dog_stand dmc_dog_trot dmc_dog_walk dmc_fish_swim dmc_fish_upright
dmc_humanoid_CMU_run dmc_humanoid_CMU_stand dmc_humanoid_CMU_walk dmc_humanoid_run
dmc_humanoid_run_pure_state dmc_humanoid_stand dmc_humanoid_walk dmc_lqr_lqr_2_1 dmc_lqr_lqr_6_2
dmc_manipulator_bring_ball dmc_manipulator_bring_peg dmc_manipulator_insert_ball
dmc_manipulator_insert_peg dmc_point_mass_easy dmc_point_mass_hard dmc_quadruped_escape
dmc_quadruped_fetch dmc_stacker_stack_2 dmc_stacker_stack_4 dmc_swimmer_swimmer15
dmc_swimmer_swimmer6
"""
SUITE = (*TASKS, *_OTHERS.split())  # all that dm_control registers; one of them has two names
EPISODE = 1000  # environment steps at most, where neither a flag nor the environment says
# The games of ale-py that one can play alone; named here so that a slip is told without it.
_GAMES = """
adventure air_raid alien amidar assault asterix asteroids atlantis atlantis2 backgammon bank_heist
basic_math battle_zone beam_rider berzerk blackjack bowling boxing breakout carnival casino
centipede chopper_command crazy_climber crossbow darkchambers defender demon_attack donkey_kong
double_dunk earthworld elevator_action enduro entombed et fishing_derby flag_capture freeway frogger
frostbite galaxian gopher gravitar hangman haunted_house hero human_cannonball ice_hockey jamesbond
journey_escape kaboom kangaroo keystone_kapers king_kong klax koolaid krull kung_fu_master
laser_gates lost_luggage mario_bros miniature_golf montezuma_revenge mr_do ms_pacman name_this_game
othello pacman phoenix pitfall pitfall2 pong pooyan private_eye qbert riverraid road_runner robotank
seaquest sir_lancelot skiing solaris space_invaders space_war star_gunner superman surround tennis
tetris tic_tac_toe_3d time_pilot trondead turmoil tutankham up_n_down venture video_checkers
video_chess video_cube video_pinball wizard_of_wor word_zapper yars_revenge zaxxon
"""
GAMES = tuple(_GAMES.split())
# An EnvId of gymnasium ends in a version, `gym_ale_py:ALE/Pong-v5`, and so does not match.
_CUSTOM = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def family(task: str) -> str:
    """Return `dmc`, `gym`, `atari`, or `custom` for a factory of the user's; "" if it is none."""
    if task in FACTORIES or _CUSTOM.fullmatch(task):
        return "custom"
    prefix, underscore, _ = task.partition("_")
    return prefix if underscore and prefix in ("dmc", "gym", "atari") else ""


def default_action_repeat(task: str) -> int:
    """Return how many environment steps an agent step takes where the user does not say."""
    return {"dmc": 2, "atari": 4}.get(family(task), 1)


def default_time_limit(task: str) -> int | None:
    """Return the environment steps of an episode at most, None if the environment is to say."""
    return {"dmc": EPISODE, "atari": 108_000}.get(family(task))


def may_terminate(task: str) -> bool:
    """Return whether an episode may end for another reason than its time limit."""
    return family(task) != "dmc" or task.startswith("dmc_lqr_")


def check_task(task: str) -> None:
    """Raise `ValueError` with a reason of one line, and the nearest names, for an unknown task.

    Runs no code of the user's: what `<module>:<factory>` names is found out in the worker.
    """
    kind, name = family(task), task.partition("_")[2]
    if task in SUITE or task in FACTORIES:
        return
    # `gym_PACKAGE:EnvId` is gymnasium's own way to name what a package registers.
    if kind == "custom" or (kind == "gym" and ":" in name):
        # To look for a submodule would import what it is part of.
        top = re.split("[.:]", task if kind == "custom" else name)[0]
        if PathFinder.find_spec(top, [os.getcwd(), *sys.path]):
            return
        raise ValueError(f"there is no module {top} in {os.getcwd()}, and none is installed")
    if kind == "atari" and name in GAMES:
        if PathFinder.find_spec("ale_py"):
            return
        raise ValueError("needs ale-py: run `pip install '.[atari]'`")
    import gymnasium

    if kind == "gym" and name in gymnasium.registry:
        return
    close = _suggestion(task, kind, list(gymnasium.registry))
    if kind == "gym":
        close = close or "`gymnasium.pprint_registry()` lists what is"
        raise ValueError(f"not registered; {close} (what a package registers is gym_PACKAGE:EnvId)")
    valid = {
        "dmc": f"choose from {', '.join(TASKS)}, or others, which --help-all lists",
        "atari": "--help-all lists the games",
        "": "Tasks are dmc_<domain>_<task>, gym_<EnvId>, atari_<game>, <module>:<factory>, and "
        "names that were registered",
    }
    raise ValueError(f"unknown; {close or valid[kind]}")


def _suggestion(task: str, kind: str, registered: list[str]) -> str:
    """Word the task of any family that has this name but for its form, or else ones like it."""
    games, gym = [f"atari_{game}" for game in GAMES], [f"gym_{env_id}" for env_id in registered]
    same = [name for name in (*FACTORIES, *SUITE, *games, *gym[::-1]) if _core(name) == _core(task)]
    if same and _core(task):
        return f"did you mean {min(same, key=lambda name: '/' in name)}?"
    name, every = task.partition("_")[2], (*SUITE, *games, *FACTORIES)
    pools = {"atari": (name, GAMES, "atari_"), "gym": (name, registered, "gym_")}
    close = nearest(*pools.get(kind, (task, SUITE if kind == "dmc" else every)))
    return close if close.startswith("did") else ""


def _core(task: str) -> str:
    """Return what a task is called in all families: no prefix, namespace, version or signs."""
    core = re.sub(r"^.*[:/]|^(dmc|gym|atari)_|(NoFrameskip|Deterministic)?-v\d+$", "", task)
    return re.sub("[^a-z0-9]", "", core.lower())
