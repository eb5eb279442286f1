"""sweep without Ray: the plan, shares of machines, the process of a run, retries and the table."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from command_line import RUN, command, here

from dreamer_bird.commands.sweep import launcher, node
from dreamer_bird.commands.sweep.board import Board
from dreamer_bird.commands.sweep.launcher import Launcher
from dreamer_bird.commands.sweep.machines import Machine, Share, at_once, share_of
from dreamer_bird.commands.sweep.plan import PlannedRun, forecast, make_plan
from dreamer_bird.config import load
from dreamer_bird.envs.custom import FACTORIES
from dreamer_bird.errors import ConfigError, RunError
from dreamer_bird.training import checkpoint
from dreamer_bird.utils.signals import Stopped

TASK = "dmc_cartpole_balance"
FLAGS = ["--tasks", TASK, "--variants", "dreamer,bird", "--seeds", "0..1", "--configs", "debug"]


def sweep(*flags, run=command):
    return run("sweep", *flags)


def plan(logdir, tasks=(TASK,), variants=("bird",), seeds=(0,), settings=("--configs", "debug")):
    return make_plan(tasks, variants, seeds, settings, logdir)


def finish(run, saved_step=None):
    """Write what a run leaves at its end, or before it."""
    step = run.config.steps
    run.logdir.mkdir(parents=True)
    run.config.save(run.logdir / "config.yaml")
    header = {"saved_step": step if saved_step is None else saved_step}
    checkpoint.save(run.logdir / "checkpoints", step, {"w": np.zeros(2)}, header, keep=2)


def test_the_runs_are_those_of_each_seed_and_land_where_compare_looks(tmp_path):
    runs = plan(tmp_path, (TASK, "json:loads"), ("dreamer", "soft_bird"), (0, 3))
    assert [str(run.logdir.relative_to(tmp_path)) for run in runs] == [
        *(f"{TASK}/dreamer/0", f"{TASK}/soft_bird/0"),
        *("json_loads/dreamer/0", "json_loads/soft_bird/0"),
        *(f"{TASK}/dreamer/3", f"{TASK}/soft_bird/3"),
        *("json_loads/dreamer/3", "json_loads/soft_bird/3"),
    ]
    assert runs[3].flags == [
        *("--configs", "debug", "--task", "json:loads", "--variant", "soft_bird"),
        *("--seed", "0", "--logdir", str(tmp_path / "json_loads/soft_bird/0")),
    ]


def test_a_dry_run_tells_time_memory_and_disk_and_creates_nothing(tmp_path):
    done = sweep(*FLAGS, "--logdir", tmp_path / "new", "--cpus-per-run", 1, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{TASK}/dreamer/0   waiting" in done.stdout
    assert "4 runs: 4 waiting; 0 of 12,000 steps" in done.stdout
    assert "with 1 core\ntime: not known" in done.stdout
    # 3,000 steps with action repeat 2, of 64 x 64 x 3 bytes each.
    assert "memory: 0.02 GB for the images in a run's replay" in done.stdout
    # As much for each of four runs, and two episodes for each of their two checkpoints.
    assert "disk: 0.08 GB at most besides checkpoints, logs and videos" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tasks", "dmc_hoper_hop"], "--task dmc_hoper_hop: unknown; did you mean dmc_hopper"),
        (["--variants", "bird,drreamer"], "--variant drreamer: unknown; did you mean dreamer?"),
        (["--seeds", "4..0"], "--seeds 4..0: must be a range like 0..4"),
        (["--seeds", "one"], "--seeds one: must be like 0,3,7 or 0..4"),
        (["--seeds", "0.."], "--seeds 0..: must be like 0,3,7 or 0..4"),
        (["--tasks", f"{TASK},"], f"--tasks {TASK},: must be names with a comma between"),
        (["--devices", "3"], "--devices 3: must divide --replay.batch 4 evenly"),
        (["--seeds", "0..3,2"], f"--seeds: {TASK}/dreamer/2 would be there twice"),
        (["--task", TASK], "--task: a sweep takes --tasks"),
        (["--cpus", "2"], "unknown flag --cpus: did you mean --cpus-per-run"),
        (["--cpus-per-run", "9999"], "--cpus-per-run 9999: this machine has "),
        (["--gpus-per-run", "99"], "--gpus-per-run 99: this machine has "),
        (
            ["--gpus-per-run", "1.5"],
            "--gpus-per-run 1.5: must be a part of a GPU, 0.0001 at least, or",
        ),
        (["--gpus-per-run", "1e-5"], "--gpus-per-run 1e-5: must be a part of a GPU, 0.0001"),
        (["--logger", "wandb"], "--logger wandb: run `pip install"),
        (["--model.lr", "0"], "--model.lr 0: must be a number above 0"),
        (["--address", "here"], "--address here: must be HOST:PORT or auto"),
        (["--address", "a:65536"], "--address a:65536: must be HOST:PORT or auto"),
        (["--logdir", str(RUN)], "run.py is not a folder"),
    ],
)
def test_a_wrong_value_is_refused_in_a_line_before_anything_is_there(tmp_path, flags, words):
    run = command if "--address" in flags else here
    done = sweep(*FLAGS, "--logdir", tmp_path / "new", *flags, run=run)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_ray_it_is_said_how_to_get_it(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError")
    done = command("sweep", *FLAGS, "--logdir", tmp_path / "new", PYTHONPATH=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "run.py: sweep needs Ray: run `pip install '.[sweep]'`\n",
    )
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_complete_needs_no_ray(tmp_path):
    for run in plan(tmp_path, variants=("dreamer", "bird"), seeds=(0, 1)):
        finish(run)
    done = sweep(*FLAGS, "--logdir", tmp_path, "--address", "127.0.0.1:1", run=here)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 runs: 4 done" in done.stdout


def test_a_run_is_complete_when_its_last_updates_are_saved(tmp_path):
    (run,) = plan(tmp_path)
    finish(run, saved_step=run.config.steps - 200)
    assert not run.is_complete()
    assert plan(tmp_path)[0].state == "waiting"
    assert plan(tmp_path, settings=("--configs", "debug", "--steps", "2800"))[0].state == "done"


def test_weights_alone_are_no_run_that_came_to_its_end(tmp_path):
    (run,) = plan(tmp_path)
    checkpoint.save(run.logdir / "checkpoints", 5, {"w": np.zeros(2)}, {"replay": []}, keep=1)
    assert not run.is_complete()


def test_a_home_that_there_is_not_is_a_folder_of_that_name(tmp_path):
    done = sweep(*FLAGS, "--logdir", "~nosuch/x", "--dry-run", run=here)
    assert (done.returncode, done.stderr) == (0, "") and "waiting" in done.stdout


def test_a_folder_with_another_run_is_refused(tmp_path):
    (run,) = plan(tmp_path)
    finish(run)
    with pytest.raises(RunError, match=r"holds another run \(model\.depth: saved 4, now 8"):
        plan(tmp_path, settings=("--configs", "debug", "--model.depth", "8"))


def test_an_address_where_nothing_answers_is_named_at_once(tmp_path):
    begun = time.monotonic()
    done = sweep(*FLAGS, "--logdir", tmp_path / "new", "--address", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr == "run.py: --address 127.0.0.1:1: Connection refused\n"
    assert time.monotonic() - begun < 20 and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("machines", "runs", "cpus", "gpus", "share", "beside"),
    [
        ([Machine(2, 0)], 4, None, None, Share(1, 0), 2),
        ([Machine(16, 0)], 4, None, None, Share(4, 0), 4),
        ([Machine(16, 0)], 4, 1, None, Share(1, 0), 16),
        ([Machine(16, 4)], 180, None, None, Share(4, 1), 4),
        ([Machine(16, 4)], 180, None, 0.5, Share(2, 0.5), 8),
        ([Machine(16, 2)], 180, None, 0.6, Share(8, 0.6), 2),  # none is of two GPUs
        ([Machine(16, 4)], 180, None, 2, Share(8, 2), 2),
        ([Machine(16, 4)], 180, None, 0, Share(1, 0), 16),
        ([Machine(16, 4)], 1, None, None, Share(16, 1), 1),
        ([Machine(8, 1), Machine(4, 0), Machine(12, 1)], 6, None, None, Share(8, 1), 2),
    ],
)
def test_a_run_gets_what_is_asked_for_or_a_gpu_and_its_part_of_the_cores(
    machines, runs, cpus, gpus, share, beside
):
    assert share_of(machines, runs, 1, cpus, gpus) == share
    assert at_once(machines, share) == beside


def test_a_run_on_several_devices_gets_as_many_gpus():
    assert share_of([Machine(16, 4)], 180, 2, None, None) == Share(8, 2)
    assert share_of([Machine(16, 0)], 4, 2, None, None) == Share(4, 0)


def test_the_threads_of_a_run_are_as_many_as_its_cores():
    base = {"HOME": "/root", "OMP_NUM_THREADS": "64", "TF_CONFIG": "of the sweep's own container"}
    env = node.environment(base, Share(3, 0))
    assert "TF_CONFIG" not in env  # or the run would wait for others
    for name in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM", "LP_NUM"):
        assert env[f"{name}_THREADS"] == "3"
    assert env["CUDA_VISIBLE_DEVICES"] == "-1" and env["HOME"] == "/root"
    # TensorFlow heeds them.
    code = "import pathlib, tensorflow as tf; tf.random.normal([512, 512]) @ tf.eye(512); "
    code += (
        "names = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]; "
    )
    code += "print(names.count('tf_Compute\\n'))"
    variables = node.environment(os.environ, Share(9, 0))
    assert int(subprocess.check_output([sys.executable, "-c", code], env=variables)) == 9


def test_a_run_renders_on_the_gpu_that_it_trains_on(monkeypatch, capfd):
    """EGL's devices: one that is no NVIDIA GPU, then those that CUDA calls 1 and 0."""
    integer, pointer = ctypes.c_int, ctypes.c_void_p

    @ctypes.CFUNCTYPE(integer, pointer, integer, pointer)
    def query(device, attribute, number):
        assert attribute == 0x323A
        if device == 7:
            return 0
        ctypes.cast(number, ctypes.POINTER(ctypes.c_ssize_t))[0] = {8: 1, 9: 0}[device]
        return 1

    egl = types.SimpleNamespace(
        eglQueryDevicesEXT=lambda *_: [7, 8, 9],
        eglGetProcAddress=lambda name: ctypes.cast(query, pointer).value,
    )
    monkeypatch.setitem(sys.modules, "mujoco.egl", types.SimpleNamespace(egl_ext=egl))
    for gpu in "012":
        node.print_rendering_device(gpu)
    assert capfd.readouterr().out == "2\n1\n"

    answer = types.SimpleNamespace(stdout="2\n")
    asked = []
    monkeypatch.setattr(
        subprocess, "run", lambda line, env, **_: asked.append((line, env)) or answer
    )
    env = node.environment({"CUDA_VISIBLE_DEVICES": "3,1"}, Share(1, 2))
    assert env["CUDA_VISIBLE_DEVICES"] == "3,1" and env["MUJOCO_EGL_DEVICE_ID"] == "2"
    ((line, others),) = asked
    assert "'3'" in line[-1] and "CUDA_VISIBLE_DEVICES" not in others
    assert env["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_where_no_gpu_renders_mujoco_chooses():
    env = node.environment({**os.environ, "CUDA_VISIBLE_DEVICES": "77"}, Share(1, 1))
    assert "MUJOCO_EGL_DEVICE_ID" not in env


def test_the_process_of_a_run_tells_how_it_ended(tmp_path):
    folder, share = str(tmp_path), Share(1, 0)
    status, _ = node.train(["run.py", "--version"], folder, "a/0.log", share)
    assert status == 0
    status, reason = node.train(["run.py", "--variant", "birt"], folder, "a/0.log", share)
    assert status == 2
    assert reason.startswith("run.py: --variant birt: unknown; did you mean bird")
    lines = (tmp_path / "a/0.log").read_text().splitlines()
    assert lines[0].startswith("--- ") and lines[0].endswith(": run.py --version")
    assert lines[1].startswith("dreamer-bird ") and lines[3] == reason
    odd = os.fsdecode(b"\xff")  # a name that is not UTF-8
    assert node.train(["run.py", "--version", odd], folder, "a/1.log", share)[0] == 0
    assert (tmp_path / "a/1.log").read_bytes().splitlines()[0].endswith(b"'\xff'")
    missing, log = str(tmp_path / "missing"), str(tmp_path / "1.log")
    status, reason = node.train(["run.py"], missing, log, share)
    assert status == 1 and "No such file" in reason


class FakeRay:
    """Ends the tasks in order, each as the script of its run says; `wait` ends one at a time."""

    class RayError(Exception):
        pass

    def __init__(self, script):
        self.script, self.commands, self.cancelled = script, [], []
        self.exceptions = types.SimpleNamespace(RayError=self.RayError)

    def remote(self, **options):
        self.options = options
        return lambda function: types.SimpleNamespace(remote=self._submit)

    def _submit(self, command, folder, log, share):
        self.commands.append(command)
        return len(self.commands) - 1

    def wait(self, tasks, timeout, num_returns=1):
        return tasks[:num_returns], tasks[num_returns:]

    def get(self, task):
        command = self.commands[task]
        outcome = self.script[command[command.index("--seed") + 1]].pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self, task):
        self.cancelled.append(task)


def launch(runs, script, check=lambda: None, retries=2):
    ray = FakeRay(script)
    Launcher(ray, Share(2, 0.5), retries, Board(runs)).train(runs, check)
    return ray


def test_a_run_that_fails_is_tried_again_so_often_then_reported_and_others_go_on(tmp_path, capsys):
    runs = plan(tmp_path, seeds=range(5))
    script = {
        "0": [(-9, "ended by SIGKILL"), (0, "")],
        "1": [(1, "no room"), (1, "no room"), (1, "still no room")],
        "2": [(2, "--logdir: in use")],
        "3": [(143, "stopped by SIGTERM")],
        "4": [(0, "")],
    }
    ray = launch(runs, script)
    assert [run.state for run in runs] == ["done", "failed", "failed", "stopped", "done"]
    assert ray.options == {"num_cpus": 2, "num_gpus": 0.5, "max_retries": 0}
    assert not any(script.values())
    said = capsys.readouterr().out.splitlines()
    name = f"{TASK}/bird"
    assert [line for line in said if line.startswith(f"{name}/1")] == [
        f"{name}/1: retrying: 1 of 2, no room",
        f"{name}/1: retrying: 2 of 2, no room",
        f"{name}/1: failed: still no room; see {tmp_path}/{name}/1.log",
    ]
    assert f"{name}/0: retrying: 1 of 2, ended by SIGKILL" in said
    assert f"{name}/2: failed: --logdir: in use; see {tmp_path}/{name}/2.log" in said


@pytest.mark.parametrize("status", [129, 130, 143, -1, -2, -15])
def test_a_run_that_a_signal_told_to_stop_is_not_tried_again(tmp_path, status):
    runs = plan(tmp_path)
    launch(runs, {"0": [(status, "stopped")]})
    assert runs[0].state == "stopped"


def test_a_run_whose_node_is_lost_begins_again_when_the_old_one_must_have_ended(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(launcher, "ENDING", 0.5)
    monkeypatch.setattr(launcher, "TICK", 0.1)
    runs, begun = plan(tmp_path), time.monotonic()
    launch(runs, {"0": [FakeRay.RayError("node lost\nmore"), (0, "")]})
    assert runs[0].state == "done" and time.monotonic() - begun >= 0.5
    assert "retrying: 1 of 2, RayError: node lost\n" in capsys.readouterr().out


def test_a_logdir_that_a_lost_try_still_holds_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "ENDING", 0.3)
    monkeypatch.setattr(launcher, "TICK", 0.1)
    runs, begun = plan(tmp_path), time.monotonic()
    lost, held = FakeRay.RayError("node lost"), (2, "process 7 on host a is writing in it")
    launch(runs, {"0": [lost, held, (0, "")]})
    assert runs[0].state == "done"
    assert time.monotonic() - begun >= 0.6  # after the lost one, and after that which met it


def test_when_it_is_stopped_all_runs_are_told_and_their_states_are_what_became_of_them(
    tmp_path, capsys
):
    runs = plan(tmp_path, seeds=range(3))

    def check():
        finish(runs[0])
        for run in runs[:2]:
            run.state = "running"
        raise Stopped(signal.SIGTERM)

    ray = FakeRay({})
    with pytest.raises(Stopped):
        Launcher(ray, Share(2, 0.5), 2, Board(runs)).train(runs, check)
    assert ray.cancelled == [0, 1, 2]
    assert [run.state for run in runs] == ["done", "stopped", "waiting"]


def test_progress_is_read_from_a_log_that_is_being_written(tmp_path):
    lines = [{"step": 1000 * n, "fps": float(n), "train/return": 10.0 * n} for n in range(2000)]
    text = "\n".join(json.dumps(line) for line in lines)
    tail = '\n[1]\n2\n{"loss": 3}'  # of another program
    tail += '\n{"step": 2000000, "fps": null, "test/return": null}\n{"step": 99, "tra'
    (tmp_path / "metrics.jsonl").write_text(text + tail)
    run = PlannedRun(load({"logdir": str(tmp_path), "steps": 2_000_000 + 10_000}), [])
    run.read_log()
    assert (run.step, run.last_return) == (2_000_000, 19_990.0)
    assert 1500 < run.fps < 2000
    assert run.seconds_left() == 10_000 / run.fps
    new = PlannedRun(load({"logdir": str(tmp_path / "missing")}), [])
    new.read_log()
    assert new.seconds_left() is None


def test_a_registered_name_is_refused_which_the_runs_do_not_know(tmp_path, monkeypatch):
    monkeypatch.setitem(FACTORIES, "point", dict)
    with pytest.raises(ConfigError, match="--task point: other processes do not know a name that"):
        make_plan(["point"], ["bird"], [0], [], tmp_path)


def test_the_forecast_takes_the_speed_of_the_runs_there_are(tmp_path):
    runs = plan(tmp_path, seeds=range(3))
    for run, fps in zip(runs, (10, 20), strict=False):
        run.logdir.mkdir(parents=True)
        (run.logdir / "metrics.jsonl").write_text(json.dumps({"step": 2000, "fps": fps}) + "\n")
        run.read_log()
    time_line, *_ = forecast(runs, 2)
    # 1,000 steps at 10 and at 20 a second, and 3,000 at the median of both, 15.
    assert time_line.startswith("time: 0:05:50 of runs, 0:03:20 with 2 at once, at 15.0 steps")
    assert not list(forecast([], 2))


def test_the_table_on_a_terminal_shows_what_there_is_news_of_when_it_has_little_room(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("LINES", "8")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("dreamer_bird.commands.sweep.board.REFRESH", 0)
    runs = plan(tmp_path, seeds=range(20))
    with Board(runs) as board:
        runs[7].state = "running"
        board.changed(runs[7])
        board.tick()
        shown = capsys.readouterr().out
    assert f"{TASK}/bird/7: running" in shown and "waiting; 0 of 60,000 steps" in shown
    assert f"{TASK}/bird/0" in shown and f"{TASK}/bird/2" not in shown
    assert shown.index(f"{TASK}/bird/7 ") < shown.index(f"{TASK}/bird/0 ")
    assert f"{TASK}/bird/19" in capsys.readouterr().out  # all of them at the end
