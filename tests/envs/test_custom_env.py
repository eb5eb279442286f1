"""Environments of the user's, from outside the package: by module:factory, and registered."""

import os
import textwrap
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from command_line import ROOT, command, python

from dreamer_bird.envs import custom
from dreamer_bird.envs.custom import register
from dreamer_bird.envs.make import environment
from dreamer_bird.envs.spaces import Spec
from dreamer_bird.envs.worker import EnvError, EnvWorker
from dreamer_bird.errors import ConfigError

EXAMPLE = ROOT / "examples" / "point.py"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working directory, a new one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, name, code):
    (folder / f"{name}.py").write_text(textwrap.dedent(code))


def refused(task, error=ConfigError, **settings):
    make = environment(task, **settings)
    with EnvWorker("probe", make) as env, pytest.raises(error) as caught:
        env.reset(0)
        env.step(env.spec.idle_action())
    assert type(caught.value) is error
    return str(caught.value)


def test_the_example_has_20_lines_and_is_the_one_in_the_documentation():
    code = EXAMPLE.read_text()
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith('"""')]
    assert len(lines) <= 20
    page = (ROOT / "docs" / "environments.md").read_text()
    assert textwrap.indent(code[code.index("import") :].rstrip(), "    ") in page


def test_the_example_is_made_from_the_current_folder(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    with EnvWorker("probe", environment("point:Point", obs="both", action_repeat=2)) as env:
        assert env.spec == Spec({"image": (64, 64, 3), "state": (2,)}, 1)
        first = env.reset(3)
        position, velocity = first["state"]
        second, reward, *ends = env.step(np.float32([0.5]))
        velocities = velocity + 0.15, velocity + 0.3
        positions = position + 0.1 * velocity, position + 0.1 * velocity + 0.1 * velocities[0]
        np.testing.assert_allclose(second["state"], [positions[1], velocities[1]], rtol=1e-5)
        assert reward == pytest.approx(2 - abs(positions[0]) - abs(positions[1]), rel=1e-5)
        assert ends == [False, False]
        assert np.any(first["image"] != second["image"])
        np.testing.assert_array_equal(env.reset(3)["state"], first["state"])
        terminated = False
        while not terminated:
            observation, _, terminated, truncated = env.step(np.float32([1]))
        assert not truncated
        assert abs(observation["state"][0]) > 2


def test_a_factory_may_be_a_function_in_a_package(folder):
    (folder / "robots").mkdir()
    (folder / "robots" / "__init__.py").touch()
    (folder / "point.py").write_text(EXAMPLE.read_text())
    write(folder / "robots", "arms", "from point import Point\ndef make():\n    return Point()\n")
    with EnvWorker("probe", environment("robots.arms:make", obs="state")) as env:
        assert env.reset(0)["state"].shape == (2,)


@pytest.fixture(scope="module")
def unusable(tmp_path_factory):
    """Return a folder with modules whose factories cannot be used, and a process to try them in."""
    folder = tmp_path_factory.mktemp("unusable")
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = "from point import Point\nLIMIT = 3\ndef needy(x): pass\ndef nothing(): return {}\n"
    code += "def leaving(): raise SystemExit(3)\ndef failing(**_): raise KeyError('no\\nrobot')\n"
    code += "def causeless(**_): raise ValueError('no goal') from KeyError\n"
    (folder / "broken.py").write_text(code)
    learned = "import mujoco\nimport tensorflow\nfrom point import Point\n"
    (folder / "learned.py").write_text(learned)
    late = "from point import Point\ndef late():\n    from tensorflow import keras\n"
    (folder / "late.py").write_text(late)
    wary = (
        "try:\n    import tensorflow.keras\nexcept ImportError:\n    raise ImportError('get it')\n"
    )
    (folder / "wary.py").write_text(wary)
    wild = "from numpy import *\ndef make(): pass\nfrom point import Point\n"
    (folder / "wild.py").write_text(wild)
    (folder / "many.py").write_text("".join(f"def x{n}(): pass\n" for n in range(46)))
    (folder / "none.py").touch()
    with ProcessPoolExecutor(1, get_context("spawn"), os.chdir, [folder]) as process:
        yield folder, process


def refusal(task):
    return refused_by(partial(environment, task, obs="state"))


def refused_by(prepare):
    with pytest.raises(ConfigError) as caught:
        prepare()()
    assert type(caught.value) is ConfigError
    return str(caught.value)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("broken:Pont", "broken:Pont: broken has no function or class Pont: did you mean Point?"),
        ("broken:LIMIT", "broken:LIMIT: LIMIT is a int, not a function or class: choose from P"),
        ("wild:notcallable", "wild has no function or class notcallable: choose from make, Point"),
        ("late:zzz", "late has no function or class zzz: choose from Point, late"),
        ("many:nothing", "many has no function or class nothing: choose from "),
        ("none:nothing", "none has no function or class nothing: it defines none at all"),
        ("broken:needy", "missing 1 required positional argument: 'x': --env.kwargs passes argume"),
        ("broken:leaving", "broken:leaving: SystemExit: 3 ("),
        ("broken:failing", "broken.py, line 6)"),
        ("broken:causeless", "ValueError: no goal ("),
        ("broken:nothing", "broken:nothing: returned a dict instead of a gymnasium.Env"),
        ("broken.arms:Point", "there is no module broken.arms"),
        ("brokn:Point", "brokn:Point: there is no module brokn in "),
        ("learned:Point", "learned.py, line 2: imports TensorFlow, beside which software OpenGL"),
        ("late:late", "late.py, line 3: imports TensorFlow, beside which software OpenGL"),
        ("gym_learned:Learned-v0", "learned.py, line 2: imports TensorFlow, beside which softwar"),
        ("wary:Point", "wary.py, line 2: imports TensorFlow, beside which software OpenGL crashe"),
    ],
)
def test_a_factory_that_cannot_be_used_is_refused_in_one_line(unusable, monkeypatch, task, words):
    folder, process = unusable
    monkeypatch.chdir(folder)
    if "TensorFlow" in words:  # which workers alone refuse
        message = refused(task, obs="state")
    else:
        message = process.submit(refusal, task).result(timeout=60)
    assert words in message
    assert "\n" not in message


def test_an_action_longer_than_an_episode_is_refused(unusable, monkeypatch):
    folder, process = unusable
    monkeypatch.chdir(folder)
    make = partial(environment, "point:Point", obs="state", action_repeat=2000)
    told = "point:Point: --env.action_repeat 2000: an episode has 1000 steps"
    assert process.submit(refused_by, make).result() == told


def test_a_library_that_can_do_without_tensorflow_does(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = "try:\n    import tensorflow\nexcept ImportError:\n    from point import Point\n"
    (folder / "versatile.py").write_text(code)
    with EnvWorker("probe", environment("versatile:Point", obs="both")) as env:
        assert env.reset(0)["image"].shape == (64, 64, 3)


def test_a_module_may_import_mujoco_which_reads_the_choice_of_opengl_at_once(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = """
        import mujoco
        from point import Point

        class Bodies(Point):
            def render(self):
                model = mujoco.MjModel.from_xml_string(
                    "<mujoco><worldbody>"
                    "<light pos='0 0 3'/><geom size='1 1 1'/>"
                    "</worldbody></mujoco>"
                )
                data = mujoco.MjData(model)
                mujoco.mj_forward(model, data)
                with mujoco.Renderer(model, 64, 64) as renderer:
                    renderer.update_scene(data)
                    return renderer.render()
    """
    write(folder, "bodies", code)
    with EnvWorker("probe", environment("bodies:Bodies")) as env:
        assert env.reset(0)["image"].std() > 5


def test_a_module_that_fails_tells_where(folder):
    write(folder, "failing", "import numpy\nimport not_there\n")
    message = refused("failing:make")
    assert message.startswith("failing:make: ModuleNotFoundError: No module named 'not_there' (")
    assert message.endswith("failing.py, line 2)")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("BadReset", ConfigError, "observation is float64 (2,) instead of float32 (2,)"),
        ("BadStep", EnvError, "observation[1] is nan, not a finite float32"),
        ("BadAction", ConfigError, "action_space is MultiBinary(2): valid are Box and Discrete"),
    ],
)
def test_an_environment_that_breaks_its_spec_is_refused_by_name(folder, name, error, words):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    write(
        folder,
        "bad",
        """
        import gymnasium, numpy as np
        from point import Point

        class BadReset(Point):
            def reset(self, **options):
                return np.zeros(2), {}

        class BadStep(Point):
            def step(self, action):
                _, *rest = super().step(action)
                return np.float32([0, np.nan]), *rest

        class BadAction(Point):
            action_space = gymnasium.spaces.MultiBinary(2)
        """,
    )
    assert refused(f"bad:{name}", error, obs="state") == f"bad:{name}: {words}"


def test_what_a_factory_can_do_is_tried_and_arguments_reach_it(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = """
        from gymnasium.wrappers import TimeLimit
        from point import Point

        class Asked(Point):
            def __init__(self, render_mode=None, goal=0):
                self.render_mode, self.goal = render_mode, goal

            def render(self):
                return super().render() // self.goal if self.render_mode else None

        class NoWords(Point):
            render_mode = None

            def __init__(self):
                pass
    """
    write(folder, "able", code)
    with EnvWorker("probe", environment("able:Asked", kwargs='{"goal": 2}')) as env:
        assert 100 < env.reset(0)["image"].max() < 128
    with EnvWorker("probe", environment("able:NoWords")) as env:
        assert env.reset(0)["image"].max() > 200


CREATORS = """
    from functools import partial

    import gymnasium, numpy as np
    from gymnasium.envs.mujoco import MujocoEnv
    from gymnasium.envs.registration import register
    from gymnasium.spaces import Box
    from point import Point

    class Asked(Point):
        def __init__(self, bright, render_mode=None):
            self.render_mode, self.bright = render_mode, bright

        def render(self):
            return np.full((8, 8, 3), self.bright, np.uint8) if self.render_mode else None

    class NoWords(Point):
        render_mode = None

        def __init__(self):
            pass

    def anything(**words):
        return Asked(**words)

    class Rod(MujocoEnv):  # takes neither width nor height
        metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 100}

        def __init__(self, render_mode=None):
            space = Box(-np.inf, np.inf, (1,))
            super().__init__(FOLDER + "/rod.xml", 5, space, render_mode=render_mode)

        def reset_model(self):
            self.set_state(self.init_qpos, self.init_qvel)
            return np.zeros(1, np.float32)

        def step(self, action):
            return np.zeros(1, np.float32), 0.0, False, False, {}

    for name, creator in {
        "Words": anything, "Part": partial(anything, bright=200), "NoWords": NoWords, "Rod": Rod
    }.items():
        register(f"Made/{name}-v0", creator, max_episode_steps=7)
"""


@pytest.mark.parametrize(
    ("name", "kwargs", "bright"),
    [("Words", "{bright: 99}", 99), ("Part", None, 200), ("NoWords", None, 0), ("Rod", None, 0)],
)
def test_whatever_gymnasium_can_make_is_made_and_drawn(folder, name, kwargs, bright):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    (folder / "rod.xml").write_text(
        "<mujoco><worldbody><light pos='0 0 3'/><body><joint name='j'/><geom size='.1'/></body>"
        "</worldbody><actuator><motor joint='j' ctrlrange='-1 1'/></actuator></mujoco>"
    )
    write(folder, "creators", CREATORS.replace("FOLDER", repr(str(folder))))
    with EnvWorker("probe", environment(f"gym_creators:Made/{name}-v0", kwargs=kwargs)) as env:
        image = env.reset(0)["image"]
        assert np.all(image == bright) if bright else image.std() > 5
        assert env.facts.time_limit == 7


def test_a_creator_that_lacks_an_argument_is_told_of_the_flag(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    write(folder, "creators", CREATORS.replace("FOLDER", "''"))
    message = refused("gym_creators:Made/Words-v0")
    assert "missing 1 required positional argument: 'bright'" in message and "\n" not in message
    assert ": --env.kwargs passes arguments on (" in message


def test_an_episode_ends_at_its_own_limit_unless_a_flag_sets_another(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = """
        from gymnasium.wrappers import TimeLimit
        from point import Point

        class Still(Point):
            def step(self, action):
                return self.state, 0.0, False, False, {}

        def limited():
            return TimeLimit(Still(), 7)
    """
    write(folder, "limits", code)

    def play(task, **settings):
        with EnvWorker("probe", environment(task, obs="state", **settings)) as env:
            env.reset(0)
            action, steps, ended = np.zeros(1, np.float32), 0, False
            while not ended:
                steps, ended = steps + 1, env.step(action)[3]
            return steps, env.facts.time_limit, env.facts.notes

    assert play("limits:limited") == (7, 7, ())
    assert play("limits:limited", action_repeat=2) == (4, 7, ())
    end = "its episodes end at {} environment steps"
    for limit in (3, 12):
        note = f"limits:limited: {end.format(limit)} by --env.time_limit, not at its own limit of 7"
        assert play("limits:limited", time_limit=limit) == (limit, limit, (note,))
    note = f"limits:Still: {end.format('1,000')}, since it names no limit: --env.time_limit sets an"
    assert play("limits:Still") == (1000, 1000, (f"{note}other",))
    assert play("limits:Still", time_limit=5) == (5, 5, ())


def test_a_registered_factory_reaches_the_worker(folder, monkeypatch):
    (folder / "registered_point.py").write_text(EXAMPLE.read_text())
    monkeypatch.syspath_prepend(folder)
    import registered_point

    register("point-1", registered_point.Point)
    try:
        make = environment("point-1", obs="state", time_limit=3)
    finally:
        del custom.FACTORIES["point-1"]
    with EnvWorker("probe", make) as env:
        env.reset(0)
        assert [env.step(np.float32([0]))[3] for _ in range(3)] == [False, False, True]


def test_a_script_may_register_what_it_defines_itself(folder):
    code = """
        from dreamer_bird import register
        from dreamer_bird.envs.make import environment
        from dreamer_bird.envs.worker import EnvWorker
        from point import Point

        def far():
            env = Point()
            env.metadata = {"far": True}
            return env

        register("far-point", far)
        if __name__ == "__main__":
            with EnvWorker("probe", environment("far-point", obs="state")) as env:
                print(env.reset(1)["state"].shape)
    """
    (folder / "point.py").write_text(EXAMPLE.read_text())
    write(folder, "script", code)
    done = python("script.py")
    assert (done.stdout, done.stderr) == ("(2,)\n", "")


def test_a_script_that_imports_tensorflow_at_its_top_level_is_told_so(folder):
    code = """
        import tensorflow
        from dreamer_bird.envs.make import environment
        from dreamer_bird.envs.worker import EnvWorker

        if __name__ == "__main__":
            with EnvWorker("probe", environment("dmc_pendulum_swingup")) as env:
                env.reset(1)
    """
    write(folder, "script", code)
    done = python("script.py")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    words = f"{folder / 'script.py'}: imports TensorFlow at its top level, and environments, which"
    assert last.startswith(f"dreamer_bird.errors.ConfigError: {words}")
    assert last.endswith("import it in a function, or below `if __name__ == '__main__':`")


def test_the_example_is_learned_from_outside_the_package(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    sizes = ["--steps", 60, "--env.time_limit", 30, "--train.updates", 1, "--train.prefill", 1]
    flags = ["--task", "point:Point", "--obs", "state", "--configs", "debug", *sizes]
    done = command(*flags)
    assert done.returncode == 0, done.stderr
    logdir = Path("logdir/point_Point/bird/0")
    assert "finished at step" in done.stdout
    assert '"model_loss"' in (logdir / "metrics.jsonl").read_text()
    assert list(logdir.glob("videos/*.gif"))


def test_a_run_that_is_refused_leaves_nothing_behind(folder):
    (folder / "point.py").write_text(EXAMPLE.read_text())
    write(
        folder,
        "bad",
        """
        import numpy as np
        from point import Point

        class Bad(Point):
            def reset(self, **options):
                return np.zeros(2), {}
        """,
    )
    before = set(folder.iterdir())
    done = command("--task", "bad:Bad", "--obs", "state", "--configs", "debug")
    words = "run.py: bad:Bad: observation is float64 (2,) instead of float32 (2,)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)
    assert set(folder.iterdir()) - before <= {folder / "__pycache__"}


def test_what_is_refused_after_the_logdir_exists_is_a_failure(folder):
    """A worker dies, and its environment cannot be made again."""
    (folder / "point.py").write_text(EXAMPLE.read_text())
    code = """
        import os
        from pathlib import Path
        from point import Point

        class Once(Point):
            def __init__(self):
                if Path("died").exists():
                    raise KeyError("the robot is gone")

            def step(self, action):
                Path("died").touch()
                os._exit(3)
    """
    write(folder, "once", code)
    done = command("--task", "once:Once", "--obs", "state", "--configs", "debug", "--logdir", "run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 2)
    assert "run.py: once:Once: KeyError: 'the robot is gone' (" in done.stderr
    assert (folder / "run" / "checkpoints").is_dir()
    again = command(
        "--task", "once:Once", "--obs", "state", "--configs", "debug", "--logdir", "new"
    )
    assert again.returncode == 2 and again.stderr.startswith("run.py: once:Once: KeyError: ")
    assert again.stderr.count("\n") == 1 and not (folder / "new").exists()
