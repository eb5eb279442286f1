"""Worker processes: the protocol, and every way in which a worker can fail."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from dreamer_bird.envs.rendering import RenderingError
from dreamer_bird.envs.worker import EnvError, EnvWorker, FilmError, WorkerError
from dreamer_bird.errors import ConfigError, RunError


class Counter(gymnasium.Env):
    """Shows the seed and the number of the step, and does harm where it is told to."""

    observation_space = Dict({"count": Box(-np.inf, np.inf, (2,), np.float32)})
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    render_mode = "rgb_array"

    def __init__(self, harm=None):
        self.harm = harm
        if harm == "refuses to start":
            raise ConfigError("no such arm")
        if harm == "constructor":
            raise ValueError("no such robot")
        if harm == "slow to start":
            time.sleep(60)

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        if self.harm == "reset":
            raise ValueError("cannot stand")
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        if self.harm == "step":
            raise ValueError("joint out of range")
        if self.harm == "refuses":
            raise RunError("no power")
        if self.harm == "end of file":
            raise EOFError("the environment's own file")
        if self.harm == "quits":
            sys.exit("no licence")
        if self.harm == "worn":
            raise ValueError("joint out of range")
        if self.harm == "prints":
            print("python")
            os.write(1, b"library")
        if self.harm == "exit":
            os._exit(3)
        if self.harm == "hang":
            time.sleep(60)
        if self.harm == "slow":
            for _ in range(10):
                time.sleep(0.02)
        if self.harm == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        reward = np.nan if self.harm == "nan" else float(action[0]) + self.steps
        return self._observe(), reward, self.steps == 4, self.steps == 3, {}

    def render(self):
        if self.harm == "blind":
            raise RenderingError("no light")
        if self.harm == "late" and self.steps:
            raise ValueError("too\nlate")
        if self.harm == "fatal":
            os._exit(5)
        return np.full((2, 2, 3), self.steps, np.uint8)

    def close(self):
        if self.harm == "worn":
            raise RuntimeError("cannot close")

    def _observe(self):
        if self.harm == "key":
            return {"image": np.zeros(2, np.float32)}
        return {"count": np.array([self.seed, self.steps], np.float32)}


def worker(harm=None, timeout=30.0):
    return EnvWorker("probe", partial(Counter, harm), timeout)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended but was not waited for, as its parent was killed, is not running.
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_until_gone(pid, seconds=5.0):
    deadline = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_an_episode_passes_through_unchanged():
    with worker() as env:
        assert env.facts.observation_space == Counter.observation_space
        assert env.facts.action_space == Counter.action_space
        np.testing.assert_array_equal(env.reset(7)["count"], [7, 0])
        ends = []
        for step in range(1, 5):
            action = np.array([0.25], np.float32)
            observation, reward, terminated, truncated = env.step(action)
            np.testing.assert_array_equal(observation["count"], [7, step])
            assert observation["count"].dtype == np.float32
            assert reward == step + 0.25
            ends.append((terminated, truncated))
        assert ends == [(False, False), (False, False), (False, True), (True, False)]
        np.testing.assert_array_equal(env.reset(8)["count"], [8, 0])


def test_the_split_step_is_the_same_step_and_cannot_be_mixed_up():
    with worker() as env:
        env.reset(1)
        with pytest.raises(RuntimeError, match="without step_async"):
            env.step_wait()
        env.step_async(np.array([0.5], np.float32))
        with pytest.raises(RuntimeError, match="step was called before step_wait"):
            env.step_async(np.zeros(1, np.float32))
        with pytest.raises(RuntimeError, match="reset was called before step_wait"):
            env.reset(1)
        observation, reward, _, _ = env.step_wait()
        np.testing.assert_array_equal(observation["count"], [1, 1])
        assert reward == 1.5


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("constructor", ["ValueError: no such robot", "in __init__"]),
        ("reset", ["ValueError: cannot stand", "in reset"]),
        ("step", ["ValueError: joint out of range", "in step"]),
        ("end of file", ["EOFError: the environment's own file", "in step"]),
        ("nan", ["reward is nan"]),
        ("key", ["observation lacks 'count'"]),
        ("worn", ["ValueError: joint out of range", "in step"]),
        ("quits", ["SystemExit: no licence", "in step"]),
        ("exit", ["died: exit code 3"]),
    ],
)
def test_a_failure_names_the_worker_and_its_cause(harm, words):
    env = worker(harm)
    pid = env._process.pid
    with pytest.raises(WorkerError) as caught:
        env.reset(0)
        env.step(np.zeros(1, np.float32))
    for word in [f"environment worker 'probe' (pid {pid})", *words]:
        assert word in str(caught.value)
    assert words[0] in str(caught.value).splitlines()[-1]  # which users see first
    assert not is_running(pid)
    with pytest.raises(WorkerError, match="is closed"):
        env.reset(0)


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [("refuses to start", ConfigError, "no such arm"), ("refuses", EnvError, "no power")],
)
def test_what_the_environment_refuses_keeps_its_words_and_its_exit_status(harm, error, words):
    env = worker(harm)
    pid = env._process.pid
    with pytest.raises(RunError) as caught:
        env.reset(0)
        env.step(np.zeros(1, np.float32))
    assert (type(caught.value), str(caught.value)) == (error, words)
    assert not is_running(pid)


def test_what_an_environment_prints_is_no_output_of_ours(capfd):
    with worker("prints") as env:
        env.reset(0)
        env.step(np.zeros(1, np.float32))
    out, error = capfd.readouterr()
    assert out == "" and "python" in error and "library" in error


def test_a_frame_is_of_the_present_state():
    with worker() as env:
        env.reset(0)
        env.step(np.zeros(1, np.float32))
        np.testing.assert_array_equal(env.render(), np.ones((2, 2, 3)))


@pytest.mark.parametrize(
    ("harm", "words"), [("blind", "no light"), ("late", r"render\(\) raises ValueError: too late")]
)
def test_a_worker_that_cannot_render_says_so_once_and_goes_on(harm, words):
    with worker(harm) as env:
        env.reset(3)
        with pytest.warns(UserWarning) as caught:
            frames = [env.film()]
            env.step(np.zeros(1, np.float32))
            frames += [env.film(), env.film()]
        assert len(caught) == 1
        assert re.fullmatch(f"no images are rendered: {words}", str(caught[0].message))
        assert [frame is None for frame in frames] == [harm == "blind", True, True]
        with pytest.raises(RunError, match=words):
            env.render()
        np.testing.assert_array_equal(env.step(np.zeros(1, np.float32))[0]["count"], [3, 2])


def test_a_worker_that_an_image_costs_films_no_more():
    with worker("fatal") as env:
        env.reset(0)
        words = "no images are rendered: .* died: exit code 5"
        with pytest.warns(UserWarning, match=words), pytest.raises(FilmError):
            env.film()
        env.restart()
        env.reset(0)
        assert env.film() is None


def test_a_killed_worker_is_noticed_at_once():
    with worker() as env:
        env.reset(0)
        os.kill(env._process.pid, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(WorkerError, match=r"'probe'.*died: signal SIGKILL"):
            env.step(np.zeros(1, np.float32))
        assert time.monotonic() - start < 2


def test_a_restarted_worker_serves_again():
    with worker() as env:
        env.reset(0)
        first = env._process.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL"):
            env.step(np.zeros(1, np.float32))
        env.restart()
        assert env._process.pid != first
        np.testing.assert_array_equal(env.reset(7)["count"], [7, 0])


def test_a_hanging_worker_is_given_up_and_leaves_no_process():
    env = worker("hang", timeout=5.0)
    pid = env._process.pid
    env.reset(0)
    env._timeout = 0.5
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"'probe'.*no answer within 0.5 s"):
        env.step(np.zeros(1, np.float32))
    assert time.monotonic() - start < 4
    assert not is_running(pid)


def test_time_in_which_all_was_suspended_is_no_hang(tmp_path):
    """As by Ctrl-Z, a closed laptop or a scheduler: twice, each longer than the timeout."""
    script = tmp_path / "learner.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path[:0] = {sys.path!r}
            import test_worker

            if __name__ == "__main__":
                with test_worker.worker("slow") as env:
                    env.reset(0)
                    env._timeout = 1.0
                    for _ in range(2):
                        print("steps", flush=True)
                        env.step([0.0])
                    print("done", flush=True)
            """
        )
    )
    learner = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with learner:
        for _ in range(2):
            assert learner.stdout.readline() == "steps\n"
            os.killpg(learner.pid, signal.SIGSTOP)
            time.sleep(1.2)
            os.killpg(learner.pid, signal.SIGCONT)
        assert learner.stdout.read() == "done\n"


@pytest.mark.parametrize("harm", [None, "slow to start"])
def test_close_leaves_no_process_and_may_be_repeated(harm):
    env = worker(harm)
    pid = env._process.pid
    if harm is None:
        env.reset(0)
    start = time.monotonic()
    env.close()
    env.close()
    assert time.monotonic() - start < 2.5
    assert not is_running(pid)
    with pytest.raises(WorkerError, match="is closed"):
        env.step(np.zeros(1, np.float32))


def test_a_pending_step_does_not_hold_up_close():
    env = worker("hang")
    env.reset(0)
    env.step_async(np.zeros(1, np.float32))
    start = time.monotonic()
    env.close()
    assert time.monotonic() - start < 5
    assert not is_running(env._process.pid)


def test_a_worker_ignores_the_signals_that_are_meant_for_the_learner():
    with worker("interrupt") as env:
        env.reset(0)
        observation, *_ = env.step(np.zeros(1, np.float32))
        np.testing.assert_array_equal(observation["count"], [0, 1])


def test_the_constructor_does_not_wait_for_the_environment():
    start = time.monotonic()
    with worker("slow to start"), worker("slow to start"):
        assert time.monotonic() - start < 5


def test_workers_that_are_told_to_leave_need_not_be_waited_for():
    with worker() as one, worker() as other:
        for env in (one, other):
            env.reset(0)
            env.leave()
        assert wait_until_gone(one._process.pid) and wait_until_gone(other._process.pid)
        with pytest.raises(WorkerError, match="is closed"):
            one.reset(0)


def learner_script(folder, harm, *then):
    """Return a script that prints its worker's pid amid a step, and goes on with these lines."""
    lines = [
        "import sys, time",
        f"sys.path[:0] = {sys.path!r}",
        "import test_worker",
        'if __name__ == "__main__":',
        f"    env = test_worker.worker({harm!r})",
        "    env.reset(0)",
        "    env.step_async([0.0])",
        "    print(env._process.pid, flush=True)",
        *(f"    {line}" for line in then),
    ]
    path = folder / "learner.py"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("harm", [None, "hang"])
def test_a_script_that_closes_no_worker_ends(tmp_path, harm):
    line = [sys.executable, learner_script(tmp_path, harm)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert wait_until_gone(int(done.stdout))


@pytest.mark.parametrize("harm", [None, "hang"])
def test_a_worker_ends_when_its_learner_is_killed(tmp_path, harm):
    line = [sys.executable, learner_script(tmp_path, harm, "time.sleep(60)")]
    learner = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        pid = int(learner.stdout.readline())
        assert is_running(pid)
    finally:
        learner.kill()
        learner.wait()
        learner.stdout.close()
    assert wait_until_gone(pid)


def test_a_module_that_brings_tensorflow_into_the_worker_is_refused(tmp_path, monkeypatch):
    # An empty module of that name stands in for the real one, which takes seconds to import.
    (tmp_path / "tensorflow.py").touch()
    (tmp_path / "learner_module.py").write_text(
        "import tensorflow\nfrom test_worker import Counter\ndef make():\n    return Counter()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    saved = sys.modules.get("tensorflow")
    try:
        sys.modules.pop("tensorflow", None)
        import learner_module
    finally:
        sys.modules.pop("tensorflow", None)
        if saved is not None:
            sys.modules["tensorflow"] = saved
    env = EnvWorker("probe", learner_module.make)
    with pytest.raises(ConfigError, match=r"learner_module.py, line 1: imports TensorFlow"):
        env.reset(0)
