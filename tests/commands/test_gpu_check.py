"""`run.py gpu-check`: each trial where parts of a CPU stand in, and what is made of findings."""

import json
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from command_line import ROOT, python

from dreamer_bird.commands.doctor.trials import Frames
from dreamer_bird.commands.gpu_check import command as gpu_check
from dreamer_bird.commands.gpu_check import kernels, trials
from dreamer_bird.errors import RunError

SMALL = ["--configs=debug", "--obs=state", "--model.state_layers=1", "--model.reward_layers=1"]
SMALL += ["--actor.layers=1", "--value.layers=1", "--replay.length=4"]
RTX = {
    **{"gpus": ["RTX 2080 Ti"], "capability": [7, 5], "tensorflow": "2.21.0", "xla": True},
    **{"cuda": "12.5.1", "cudnn": "9", "precision": "float16"},
    "variants": ["bird", "dreamer", "soft_bird"],
}
STEP = {"step_s_median": 0.2, "first_step_s": 30.0, "peak_gpu_mb": 3000.0}
STEP |= {"flops_share": 0.4, "matmul_gflops": 12e3, "profile": list("abcde")}
RUN = {"env_steps_per_s": 50.0, "share_train": 0.7, "share_render": 0.2, "share_other": 0.1}
FRAMES = Frames("egl", "NVIDIA GeForce RTX 2080 Ti/PCIe/SSE2", 3e8, 1.5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no GPU that TensorFlow can use: `run.py doctor` says what to do"),
        (["--minutes", "0"], "--minutes 0: must be a whole number of at least 1"),
        (["--minuts", "3"], "unknown flag --minuts: did you mean --minutes?"),
        (["--outdir", __file__], "test_gpu_check.py is not a folder"),
    ],
)
def test_without_a_gpu_or_with_bad_flags_nothing_is_created(
    run_command, run_here, tmp_path, flags, message
):
    run = run_here if flags else run_command
    result = run("gpu-check", *flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_trials_on_two_devices(tmp_path):
    program = ROOT / "tests/helpers/checking.py"
    done = python(program, tmp_path, *SMALL, CUDA_VISIBLE_DEVICES="-1")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu-check.json").read_text())
    lines = {(line["part"], line["what"]): line for line in found["lines"]}
    assert {line["status"] for line in lines.values()} == {"OK"}, lines
    assert lines.keys() == {
        *(("agreement", "float32"), ("agreement", "float32, XLA"), ("devices", "two as one")),
        *(("overflow", "float16"), ("overflow", "float16, XLA")),
    }
    figures = lines["agreement", "float32, XLA"]["figures"]
    assert figures["gradients"].keys() == {
        *("state_encoder", "state_decoder", "rssm", "reward", "actor", "value")
    }
    assert {"model_loss", "actor_loss", "value_loss"} <= figures["losses"].keys()
    assert 0 < max(figures["gradients"].values()) < 1e-3  # compiled, it rounds differently
    assert lines["overflow", "float16"]["figures"]["scale_after"] == 2.0**99


def test_another_update_is_told_apart_and_another_device_refused(tmp_path):
    plain, folder = ["--precision=float32"], str(tmp_path)
    other = trials.compare_updates(
        folder, SMALL, [["CPU:0"], plain], [["CPU:0"], [*plain, "--seed=1"]]
    )
    assert min(other["gradients"].values()) > 0.5
    with pytest.raises(RunError, match=r"CPU:9: weights are on .*CPU:0 instead"):
        trials.compare_updates(folder, SMALL, [["CPU:9"], plain], [["CPU:0"], plain])


def test_a_step_is_timed_in_a_process_of_its_own_and_what_fails_there_is_one_line(tmp_path):
    given = str(tmp_path), [*SMALL, "--precision=float32"], False, 2
    found = trials.in_process("time_steps", 200, *given)
    assert 0 < found["step_s_median"] < found["first_step_s"] and found["flops_share"] > 0
    assert found["profile_error"].startswith("the profile has no GPU in it: the driver")
    with pytest.raises(RunError, match=r"^no answer within 0 s$"):
        trials.in_process("look_around", 0.1)


def test_nothing_runs_beside_what_is_timed(tmp_path):
    done = []

    def wait_for_turn(alone):
        with trials._turn(str(tmp_path), alone):
            done.append(alone)

    with ThreadPoolExecutor() as pool:
        with trials._turn(str(tmp_path), alone=False):
            timed = pool.submit(wait_for_turn, True)
            pool.submit(wait_for_turn, False).result(timeout=10)
            assert done == [False] and not timed.done()
        timed.result(timeout=10)
        with trials._turn(str(tmp_path), alone=True):
            compiled = pool.submit(wait_for_turn, False)
            with pytest.raises(futures.TimeoutError):  # not Python's own before 3.11
                compiled.result(timeout=0.2)
        compiled.result(timeout=10)
    assert done == [False, True, False]


@pytest.mark.long
def test_a_run_is_stopped_and_goes_on():
    settings = gpu_check.RUN | {"train.updates": 1}
    words = [*SMALL, *(f"--{key}={value}" for key, value in settings.items())]
    found = trials.try_run([*words, "--task=dmc_cartpole_balance"], 300)
    assert found["env_steps_per_s"] > 0
    assert sum(found[f"share_{part}"] for part in ("train", "render", "other")) == pytest.approx(1)


LOG = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1].partition('=')[2]); p.mkdir(); "
LOG += "(p / 'metrics.jsonl').write_text('model_loss' * 9); "


@pytest.mark.parametrize(
    ("program", "limit", "message"),
    [
        ("raise ValueError('bad')", 30, "stopped by SIGTERM it ended with 1: ValueError: bad"),
        (LOG + "time.sleep(60)", 30, "stopped by SIGTERM it ended with -15"),
        ("import time; time.sleep(60)", 0.3, "it was too slow to be stopped in time"),
    ],
)
def test_a_run_that_does_not_stop_as_it_should(monkeypatch, program, limit, message):
    monkeypatch.setattr(trials, "PROGRAM", program)
    with pytest.raises(RunError, match=message):
        trials.try_run([], limit)


def space():
    """Two updates of 10 ms: 4 kernels, some on two streams that overlap, and a copy."""
    pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")
    space = pb2.XSpace()

    def plane(name, lines):
        plane = space.planes.add(name=name)
        for line, events in lines.items():
            row = plane.lines.add(name=line)
            for kernel, begin, ms in events:
                number = len(plane.event_metadata) + 1
                plane.event_metadata[number].name = kernel
                row.events.add(
                    metadata_id=number, offset_ps=int(begin * 1e9), duration_ps=int(ms * 1e9)
                )

    compute = [("gemm", 0, 4), ("conv", 4, 2), ("gemm", 10, 4), ("MemcpyH2D", 15, 1)]
    plane("/device:GPU:0", {"Stream #1": compute, "Stream #2": [("gemm", 1, 2), ("gemm", 12, 2)],
                            "XLA Ops": [("all", 0, 20)]})  # fmt: skip
    plane("/device:GPU:1", {"Stream #1": [("other", 0, 20)]})
    plane("/host:CPU", {"main": [("cuLaunchKernel", 0, 1)]})
    return space


def test_where_the_time_of_an_update_goes():
    assert kernels.summary(space(), steps=2, wall_ms=20) == [
        "an update computes for 5.50 ms on the GPU",
        "in 2 kernels, 2800 us each",
        "and 0 copies and fills, 0.50 ms",
        "most time: gemm 86%, conv 14%",
        "the GPU waited 45% of the time, while profiling slowed the host",
    ]
    empty = space()
    del empty.planes[:2]
    with pytest.raises(RunError, match="no GPU in it"):
        kernels.summary(empty, 1, 1.0)


@pytest.fixture
def examine(monkeypatch, tmp_path):
    """Make all trials, with findings in place of what they find; return the lines by name."""

    def examine(seen=RTX, seconds=600, played=lambda variant: dict(RUN), **findings):
        calls = []

        def in_process(trial, limit, *given):
            calls.append((trial, *given))
            found = findings[trial]
            found = found(*given) if callable(found) else found
            if isinstance(found, Exception):
                raise found
            return found

        def try_run(words, limit):
            calls.append(("run", words))
            return played(words[0])

        same = {"losses": {"model_loss": 1e-6}, "gradients": {"rssm": 1e-5, "actor": 2e-5}}
        findings = {
            "compare_updates": same, "provoke_overflow": {"scale": 4, "scale_after": 2},
            "time_steps": STEP, **findings,
        }  # fmt: skip
        monkeypatch.setattr(gpu_check, "in_process", in_process)
        monkeypatch.setattr(gpu_check, "try_run", try_run)
        monkeypatch.setattr(gpu_check, "try_environment", lambda config: FRAMES)
        monkeypatch.setattr(gpu_check.machine, "gpus", list)
        check = gpu_check.Check(seconds, tmp_path, echo=False)
        gpu_check.examine(check, seen)
        assert json.loads((tmp_path / "gpu-check.json").read_text()) == json.loads(
            json.dumps(check.found)
        )
        return check, calls

    return examine


def texts(check, part):
    return {line["what"]: (line["status"], line["text"]) for line in check.found["lines"]
            if line["part"] == part}  # fmt: skip


def test_all_is_well_on_an_old_gpu(examine):
    def time_steps(folder, words, tf32):
        fast = "float16" in words and words[-1] == "true"
        return STEP | {"step_s_median": 0.05 if fast else 0.2}

    check, calls = examine(time_steps=time_steps)
    assert not check.failed
    assert check.found["flags"] == "--precision float16 --xla true"
    # Neither TF32 nor bfloat16 before compute capability 8.0.
    sizes = [f"{size} {mode}" for size in gpu_check.SIZES for mode in ("float32", "float16")]
    steps = texts(check, "step")
    assert steps.pop("TF32, bfloat16") == ("SKIP", "need compute capability 8.0")
    assert steps.keys() == {f"{size}{xla}" for size in sizes for xla in ("", ", XLA")}
    assert steps["paper float16, XLA"] == (
        "OK",
        "50.0 ms, the first after 30 s, 3,000 MB of the GPU, 40% of the speed of a product "
        "(12,000 GFLOP/s)",
    )
    assert (
        "float16, since there is no bfloat16 at 7.5"
        in texts(check, "machine")["--precision auto"][1]
    )
    assert texts(check, "run")["bird"][1].startswith("stopped and resumed; 50.0 environment steps")
    runs = [words for trial, words in (call for call in calls if call[0] == "run")]
    assert [(words[0], words[-1]) for words in runs] == [
        (f"--variant={v}", "--xla=false") for v in ("bird", "dreamer", "soft_bird")
    ]
    # Of an environment step 0.3 / 50 s are no training, and it has a tenth of an update of 50 ms.
    assert texts(check, "hours")["1M environment steps"][1] == f"{1e6 * (0.006 + 0.005) / 3600:.1f}"
    assert [line["text"] for line in check.found["lines"] if line["part"] == "profile"] == list(
        "abcde"
    )
    assert texts(check, "devices") == {}
    # What XLA compiles, for minutes, comes when all else of the same size is known.
    order = [line["what"] for line in check.found["lines"]]
    assert order.index("dreamer_tf2 float32") < order.index("bird")
    assert order.index("bird") < order.index("dreamer_tf2 float16, XLA")
    assert order.index("dreamer_tf2 float16, XLA") < order.index("paper float16")


def test_the_first_run_is_alone_and_the_others_are_beside_one_another(examine, monkeypatch):
    monkeypatch.setattr(gpu_check, "_room", lambda *gpu: 3)
    beside, ended = Barrier(2, timeout=10), []

    def played(variant):
        if ended:
            beside.wait()  # breaks if the other one never comes
        ended.append(variant)
        return RUN | {"env_steps_per_s": 60.0 / len(ended)}

    check, _ = examine(played=played)
    assert ended[0] == "--variant=bird" and len(ended) == 3
    assert {status for status, _ in texts(check, "run").values()} == {"OK"}
    assert check.run_alone["env_steps_per_s"] == 60.0


def test_hours_are_not_computed_from_a_run_that_was_not_alone(examine):
    def played(variant):
        if variant == "--variant=bird":
            raise RunError("no display")
        return RUN

    check, _ = examine(played=played)
    assert [status for status, _ in texts(check, "run").values()] == ["FAIL", "OK", "OK"]
    assert texts(check, "hours") == {}


def test_a_new_gpu_has_more_formats_and_float32_means_tf32_there(examine):
    asked = []

    def time_steps(folder, words, tf32):
        asked.append((words[words.index("--precision") + 1], tf32))
        return STEP | {"step_s_median": 0.1 if asked[-1] == ("float32", False) else 0.2}

    new = RTX | {"capability": [9, 0], "gpus": ["H100", "H100"], "precision": "bfloat16"}
    found = {"losses": {"model_loss": 0.0}, "gradients": {"rssm": 2e-3}}
    check, calls = examine(new, time_steps=time_steps, compare_updates=found)
    assert asked[0] == ("bfloat16", True)  # what training would choose
    assert {*asked} == {
        ("float32", False),
        ("float32", True),
        ("bfloat16", True),
        ("float16", True),
    }
    # Too far for float32, and for two GPUs; what is fastest cannot be asked for.
    assert texts(check, "agreement")["float32"][0] == "FAIL"
    assert "more than 0.001" in texts(check, "agreement")["float32, XLA"][1]
    assert check.found["flags"].startswith("--precision bfloat16")
    assert texts(check, "devices")["two as one"][0] == "FAIL"
    (pair,) = (call for call in calls if call[0] == "compare_updates" and call[3][0] == ["GPU:0"])
    assert pair[4][0] == ["GPU:0", "GPU:1"]


def test_what_fails_is_a_line_and_the_others_go_on(examine):
    def time_steps(folder, words, tf32):
        failed = {"profile": [], "profile_error": "the profile has no GPU in it"}
        return RunError("no libdevice") if words[-1] == "true" else STEP | failed

    def compare_updates(folder, words, reference, other):
        same = {"losses": {"model_loss": 0.0}, "gradients": {"rssm": 0.0}}
        return RunError("no libdevice") if other[1][-1] == "true" else same

    check, _ = examine(time_steps=time_steps, compare_updates=compare_updates)
    assert check.failed
    assert texts(check, "agreement")["float16"][0] == "OK"
    assert texts(check, "agreement")["float16, XLA"] == ("FAIL", "no libdevice (0 s)")
    status, text = texts(check, "step")["cpu float32, XLA"]
    assert status == "FAIL" and text.startswith("no libdevice (")
    assert check.found["flags"] == "--precision float16 --xla false"
    assert texts(check, "profile")["an update"] == ("FAIL", "the profile has no GPU in it")
    assert texts(check, "run")["soft_bird"][0] == "OK"


def test_when_the_time_is_over_the_rest_is_skipped(examine):
    check, calls = examine(seconds=gpu_check.LEAST - 1)
    assert calls == []
    assert texts(check, "run")["bird"] == ("SKIP", "no time left: --minutes gives more")
    assert texts(check, "flags")["for training"][0] == "FAIL"


@pytest.mark.parametrize(
    ("cores", "memory", "workers"),
    [(16, "81559 MiB", 4), (16, "11264 MiB", 1), (2, "81559 MiB", 1), (64, "40960 MiB", 2)],
)
def test_as_many_beside_one_another_as_there_is_room_for(monkeypatch, cores, memory, workers):
    monkeypatch.setattr(gpu_check.machine, "cores", lambda: (cores, cores))
    assert gpu_check._room(gpu_check.machine.Gpu("a GPU", "550.1", memory, memory)) == workers
    assert gpu_check._room() == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_main_prints_lines_or_one_object(monkeypatch, tmp_path, capsys, as_json):
    monkeypatch.setattr(gpu_check, "in_process", lambda trial, limit: RTX)
    monkeypatch.setattr(
        gpu_check, "examine", lambda check, seen: check.add("run", "bird", "FAIL", "slow")
    )
    flags = ["--outdir", str(tmp_path / "new"), *["--json"] * as_json]
    assert gpu_check.main(flags) == 1
    found = json.loads((tmp_path / "new/gpu-check.json").read_text())
    assert found["lines"] == [{"part": "run", "what": "bird", "status": "FAIL", "text": "slow"}]
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out) == found
    else:
        assert out.splitlines()[0].split() == ["FAIL", "run", "bird", "slow"]
