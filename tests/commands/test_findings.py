"""What `doctor` makes of faked facts, one finding at a time."""

import types
from pathlib import Path

import pytest

from dreamer_bird.commands.doctor import examine
from dreamer_bird.commands.doctor.examine import Finding
from dreamer_bird.commands.doctor.trials import Frames, Probe
from dreamer_bird.config import load
from dreamer_bird.envs import rendering
from dreamer_bird.errors import RunError
from dreamer_bird.training import writers
from dreamer_bird.utils import machine

RTX = machine.Gpu("NVIDIA GeForce RTX 2080 Ti", "535.54.03", "11264 MiB", "10948 MiB")
SEEN = {"version": "2.21.0", "gpus": [], "precision": "float32", "auto": "float32"}
ON_GPU = SEEN | {"gpus": [[RTX.name, "7.5"]], "precision": "float16", "auto": "float16"}
STEP = {"step_s": 0.5, "learner_bytes": 1e9, "checkpoint_bytes": 2e8}
FAILED = Probe(None, None, "ModuleNotFoundError: No module named 'tensorflow'")


@pytest.fixture
def find(monkeypatch):
    """Examine a part, with settings, and with facts in place of those of this machine."""

    def find(part, settings=None, **facts):
        case = examine.Case(load(settings), [])
        vars(case).update({"gpus": [], "hidden": False} | facts)
        monkeypatch.setattr(machine, "gpus", lambda: case.gpus)
        return examine.PARTS[part](case)

    return find


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 14, 0)])
def test_a_python_that_the_pins_do_not_fit(find, monkeypatch, version):
    monkeypatch.setattr(examine.sys, "version_info", (3, 11, 7))
    assert find("python") == Finding("3.11.7")
    monkeypatch.setattr(examine.sys, "version_info", version)
    assert "3.10 to 3.13" in find("python").advice


@pytest.fixture
def required(monkeypatch):
    """Set what is required, and the command that installs it; some packages are installed."""
    installed = {"numpy": "2.3.1", "mujoco": "3.17.0", "tensorflow": "2.21.0"}
    monkeypatch.setattr(examine, "_version", installed.get)
    return lambda *told: monkeypatch.setattr(examine, "_requirements", lambda: told)


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        (["mujoco==3.17.0", "tensorflow==2.21.*", "numpy>=2.2,<3"], "3 as required"),
        (["numpy==2.2.6", "mujoco==3.17.0"], "numpy 2.3.1 instead of 2.2.6"),
        (["mujoco>=4"], "mujoco 3.17.0 instead of >=4"),
        (["rich==15.0.0"], "rich is missing"),
        (['rich==15.0.0; python_version < "3"', 'ray==1; extra == "sweep"'], "0 as required"),
        ([f"p{n}==1" for n in range(5)], "p0 is missing, p1 is missing, p2 is missing and 2 more"),
    ],
)
def test_packages_against_pins_and_ranges(find, required, requirements, text):
    required(requirements, "pip install x")
    finding = find("packages")
    assert (finding.text, finding.fatal) == (text, False)
    assert finding.advice == ("" if text.endswith("required") else "pip install x")


def test_a_logger_that_is_not_installed(find, required, monkeypatch):
    required(["mujoco==3.17.0"], "")
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    finding = find("packages", {"logger": "wandb"})
    assert finding.fatal and finding.text.startswith("--logger wandb: run `pip install")


def test_ranges_are_installed_one_by_one(find, required):
    required(["numpy>=2.2,<2.3", "rich==15.*"], "")
    assert find("packages").advice == "pip install 'numpy<2.3,>=2.2' 'rich==15.*'"


@pytest.mark.parametrize(
    ("usable", "quota", "setting", "variable", "text", "advice"),
    [
        (16, 16, None, "", "16", ""),
        (16, 2, None, "", "the time of 2 of 16, for 16 threads", "add --threads 2"),
        (16, 2, 2, "", "the time of 2 of 16", ""),
        (16, 2.5, None, "3", "the time of 2.5 of 16", ""),
        (4, 4, None, "9", "4, for 9 threads", "add --threads 4"),
        (4, 4, 10, "1", "4, for 10 threads", "add --threads 4"),
        (16, 2, None, "0", "the time of 2 of 16, for 16 threads", "add --threads 2"),
    ],
)
def test_cores_against_threads(find, monkeypatch, usable, quota, setting, variable, text, advice):
    monkeypatch.setattr(machine, "cores", lambda: (usable, quota))
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", variable)
    assert find("cores", {"threads": setting}) == Finding(text, advice)


@pytest.mark.parametrize(
    ("gpus", "hidden", "cuda", "text", "advice", "fatal"),
    [
        ([], False, False, "no NVIDIA GPU", "", False),
        ([], False, True, "no NVIDIA GPU", "--gpus all", False),
        ([RTX], False, True, "RTX 2080 Ti with 10948 MiB of 11264 MiB free", "", False),
        ([RTX._replace(driver="470.256.02")], False, True, "470.256.02", "525.60.13", True),
        ([RTX._replace(driver="470.256.02")], True, True, "470.256.02", "", False),
    ],
)
def test_the_gpu_and_its_driver(find, monkeypatch, gpus, hidden, cuda, text, advice, fatal):
    monkeypatch.setattr(examine, "_cuda_packages", lambda: {"cuda": "1" if cuda else None})
    finding = find("gpu", gpus=gpus, hidden=hidden)
    assert text in finding.text and advice in finding.advice
    assert (bool(finding.advice), finding.fatal) == (bool(advice), fatal)


@pytest.mark.parametrize(
    ("probe", "gpus", "missing", "text", "advice"),
    [
        (FAILED, [], [], "does not load: ModuleNotFoundError", "pip a"),
        (Probe(SEEN, STEP, ""), [], [], "2.21.0, on the CPU", ""),
        (Probe(SEEN, STEP, ""), [RTX], ["nvidia-cudnn-cu12"], "does not see the NV", "-cuda.txt"),
        (Probe(SEEN, STEP, ""), [RTX], [], "does not see the NV", "TF_CPP_MIN_LOG_LEVEL=0"),
        (Probe(ON_GPU, STEP, ""), [RTX], [], "2080 Ti (compute capability 7.5)", ""),
    ],
)
def test_tensorflow_and_the_gpu_that_the_driver_shows(
    find, required, monkeypatch, probe, gpus, missing, text, advice
):
    required([], "pip a")
    monkeypatch.setattr(examine, "_cuda_packages", lambda: dict.fromkeys(missing))
    finding = find("tensorflow", probe=probe, gpus=gpus)
    assert text in finding.text and advice in finding.advice
    assert bool(finding.advice) == finding.fatal == bool(advice)


def test_the_packages_of_cuda_are_those_that_tensorflow_asks_for(required, monkeypatch):
    lines = ["numpy>=1.26", "nvidia-cudnn-cu12<10; extra == 'and-cuda'", "tensorflow[and-cuda]"]
    monkeypatch.setattr(examine.importlib.metadata, "requires", lambda name: lines)
    assert examine._cuda_packages() == {"nvidia-cudnn-cu12": None, "tensorflow": "2.21.0"}


def test_more_devices_than_there_are(find):
    finding = find("tensorflow", {"devices": 2}, probe=Probe(ON_GPU, STEP, ""), gpus=[RTX])
    assert "alone" in finding.text and finding.advice == "--devices 1" and finding.fatal
    on_cpu = find("tensorflow", {"devices": 2}, probe=Probe(SEEN, STEP, ""))
    assert not on_cpu.fatal  # parts of the processor will do


@pytest.mark.parametrize(
    ("chosen", "auto", "text", "advice"),
    [
        ("float16", "float16", "float16", ""),
        ("float32", "float16", "float32; --precision auto: float16", ""),
        ("bfloat16", "float16", "bfloat16", "--precision auto would choose float16"),
    ],
)
def test_the_precision_chosen(find, chosen, auto, text, advice):
    probe = Probe(SEEN | {"precision": chosen, "auto": auto}, STEP, "")
    assert find("precision", probe=probe) == Finding(text, advice)


def test_an_update_that_works_is_slow_or_fails(find):
    # After five random episodes a block of 100 updates for each of the 996 that follow.
    settings = {"steps": 1_000_000}
    finding = find("training", settings, probe=Probe(SEEN, STEP, ""))
    assert finding == Finding("an update takes 0.5 s, the run's 99,600 13.8 hours")
    slow = STEP | {"step_s": 6.0}
    assert "--configs cpu" in find("training", settings, probe=Probe(SEEN, slow, "")).advice
    assert not find("training", settings, probe=Probe(ON_GPU, slow, "")).advice
    oom = "ResourceExhaustedError: OOM when allocating tensor"
    for probe, text in ((FAILED, "TensorFlow does not load"), (Probe(SEEN, None, oom), oom)):
        finding = find("training", probe=probe)
        assert finding.fatal and finding.text == f"no update: {text}"


SOFTWARE = Frames("egl", "llvmpipe (LLVM 15.0.6, 256 bits)", 2e8, 12.34)
NO_GL = Frames("", "", 0, 0, "no OpenGL that works was found: run `install it`")


@pytest.mark.parametrize(
    ("frames", "gpus", "chosen", "text", "advice"),
    [
        (SOFTWARE, [], "", "12.3 ms an agent step, egl, llvmpipe", ""),
        (SOFTWARE, [RTX], "", "llvmpipe", "NVIDIA_DRIVER_CAPABILITIES must have graphics"),
        (SOFTWARE._replace(renderer="NVIDIA GeForce"), [RTX], "", "NVIDIA", ""),
        (SOFTWARE._replace(renderer=""), [RTX], "", "without OpenGL", ""),
        (NO_GL._replace(error="ImportError: no EGL"), [], "egl", "no EGL", "unset it"),
        (NO_GL._replace(error="ImportError: libGL"), [], "", "ImportError: libGL", "install it"),
        (NO_GL._replace(error="ImportError: x"), [], "", "ImportError: x", ""),  # not OpenGL's
        (NO_GL, [], "", "install it", ""),  # which says what to do
    ],
)
def test_rendering(find, monkeypatch, frames, gpus, chosen, text, advice):
    monkeypatch.setattr(rendering, "INSTALL_COMMAND", "install it")
    monkeypatch.setenv("MUJOCO_GL", chosen)
    finding = find("rendering", frames=frames, gpus=gpus)
    assert text in finding.text and advice in finding.advice
    assert bool(finding.advice) == bool(advice)
    assert finding.fatal == bool(frames.error)


def test_memory_that_does_not_suffice(find, monkeypatch):
    def memory(learner, free, limited):
        monkeypatch.setattr(machine, "free_memory", lambda: (free, limited))
        probe = Probe(SEEN, STEP | {"learner_bytes": learner}, "")
        frames = Frames("", "", worker_bytes=1e8, milliseconds=1.0)
        return find("memory", {"obs": "state", "envs": 2}, probe=probe, frames=frames)

    # A worker of each environment, and that of evaluations.
    assert memory(1e9, 2e9, limited=False) == Finding("1.30 GB needed, 2.00 GB free")
    own, limited = (memory(2e9, 2.2e9, limited=limited) for limited in (False, True))
    assert own.fatal and limited.fatal and "this container" in limited.text


@pytest.mark.parametrize(
    ("free", "advised", "fatal"), [(5e9, False, False), (1.5e9, True, False), (5e8, True, True)]
)
def test_a_disk_that_may_or_will_be_full(find, monkeypatch, free, advised, fatal):
    usage = types.SimpleNamespace(free=free)
    monkeypatch.setattr(examine.shutil, "disk_usage", lambda folder: usage)
    probe = Probe(SEEN, STEP | {"checkpoint_bytes": 1e9}, "")
    # Two checkpoints are kept, and one more is there while it is written.
    finding = find("disk", {"obs": "state", "logdir": "/x"}, probe=probe)
    assert finding.text.startswith("3.00 GB needed at most")
    assert (bool(finding.advice), finding.fatal) == (advised, fatal)
    assert finding.text.endswith(f"in {Path('/')}")


def test_a_driver_that_fails_shows_no_gpu(monkeypatch):
    def fail():
        raise RunError("NVIDIA-SMI has failed")

    monkeypatch.setattr(machine, "gpus", fail)
    assert examine.Case(load(), []).gpus == []
