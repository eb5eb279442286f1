"""What `doctor` makes of faked facts, one finding at a time."""

from pathlib import Path

import pytest

from dreamer_bird.commands.doctor import findings
from dreamer_bird.commands.doctor.findings import Finding, Frames, Probe
from dreamer_bird.utils import machine

RTX = machine.Gpu("NVIDIA GeForce RTX 2080 Ti", "535.54.03", "11264 MiB", "10948 MiB")
SEEN = {"version": "2.21.0", "gpus": [], "precision": "float32", "auto": "float32"}
ON_GPU = SEEN | {"gpus": [[RTX.name, "7.5"]], "precision": "float16", "auto": "float16"}
STEP = {"step_s": 0.5, "learner_bytes": 1e9, "checkpoint_bytes": 2e8}
FAILED = Probe(None, None, "ModuleNotFoundError: No module named 'tensorflow'")


@pytest.mark.parametrize("version", [(3, 9, 1), (3, 14, 0)])
def test_a_python_that_the_pins_do_not_fit(version):
    assert findings.of_python((3, 11, 7)) == Finding("3.11.7")
    assert "3.10 to 3.13" in findings.of_python(version).advice


INSTALLED = {"numpy": "2.3.1", "mujoco": "3.17.0", "tensorflow": "2.21.0"}


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
def test_packages_against_pins_and_ranges(requirements, text):
    finding = findings.of_packages(requirements, "pip install x", INSTALLED.get)
    assert (finding.text, finding.fatal) == (text, False)
    assert finding.advice == ("" if text.endswith("required") else "pip install x")


def test_ranges_are_installed_one_by_one():
    finding = findings.of_packages(["numpy>=2.2,<2.3", "rich==15.*"], "", INSTALLED.get)
    assert finding.advice == "pip install 'numpy<2.3,>=2.2' 'rich==15.*'"


@pytest.mark.parametrize(
    ("usable", "quota", "setting", "variable", "text", "advice"),
    [
        (16, 16, None, "", "16", ""),
        (16, 2, None, "", "the time of 2 of 16, for 16 threads", "add --threads 2"),
        (16, 2, 2, "", "the time of 2 of 16", ""),
        (16, 2.5, None, "3", "the time of 2.5 of 16", ""),
        (4, 4, None, "9", "4, for 9 threads", "add --threads 4"),
        (4, 4, 10, "1", "4, for 10 threads", "add --threads 4"),
    ],
)
def test_cores_against_threads(usable, quota, setting, variable, text, advice):
    finding = findings.of_cores(usable, quota, setting, {"TF_NUM_INTRAOP_THREADS": variable})
    assert (finding.text, finding.advice) == (text, advice)
    assert not finding.fatal


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
def test_the_gpu_and_its_driver(gpus, hidden, cuda, text, advice, fatal):
    finding = findings.of_gpu(gpus, hidden, cuda)
    assert text in finding.text and advice in finding.advice
    assert (bool(finding.advice), finding.fatal) == (bool(advice), fatal)


@pytest.mark.parametrize(
    ("probe", "gpu", "missing", "text", "advice"),
    [
        (FAILED, "", [], "does not load: ModuleNotFoundError", "pip a"),
        (Probe(SEEN, STEP, ""), "", [], "2.21.0, on the CPU", ""),
        (Probe(SEEN, STEP, ""), RTX.name, ["nvidia-cudnn-cu12"], "does not see the NV", "pip b"),
        (Probe(SEEN, STEP, ""), RTX.name, [], "does not see the NV", "TF_CPP_MIN_LOG_LEVEL=0"),
        (Probe(ON_GPU, STEP, ""), RTX.name, [], "2080 Ti (compute capability 7.5)", ""),
    ],
)
def test_tensorflow_and_the_gpu_that_the_driver_shows(probe, gpu, missing, text, advice):
    finding = findings.of_tensorflow(probe, gpu, 1, missing, ("pip a", "pip b"))
    assert text in finding.text and advice in finding.advice
    assert bool(finding.advice) == finding.fatal == bool(advice)


def test_more_devices_than_there_are():
    finding = findings.of_tensorflow(Probe(ON_GPU, STEP, ""), RTX.name, 2, [], ("", ""))
    assert "alone" in finding.text and finding.advice == "--devices 1" and finding.fatal
    on_cpu = findings.of_tensorflow(Probe(SEEN, STEP, ""), "", 2, [], ("", ""))
    assert not on_cpu.fatal  # parts of the processor will do


@pytest.mark.parametrize(
    ("chosen", "auto", "text", "advice"),
    [
        ("float16", "float16", "float16", ""),
        ("float32", "float16", "float32; --precision auto: float16", ""),
        ("bfloat16", "float16", "bfloat16", "--precision auto would choose float16"),
    ],
)
def test_the_precision_chosen(chosen, auto, text, advice):
    probe = Probe(SEEN | {"precision": chosen, "auto": auto}, STEP, "")
    assert findings.of_precision(probe) == Finding(text, advice)


def test_an_update_that_works_is_slow_or_fails():
    finding = findings.of_training(Probe(SEEN, STEP, ""), 99_600)
    assert finding == Finding("an update takes 0.5 s, the run's 99,600 13.8 hours")
    slow = STEP | {"step_s": 6.0}
    assert "--configs cpu" in findings.of_training(Probe(SEEN, slow, ""), 99_600).advice
    assert not findings.of_training(Probe(ON_GPU, slow, ""), 99_600).advice
    oom = "ResourceExhaustedError: OOM when allocating tensor"
    for probe, text in ((FAILED, "TensorFlow does not load"), (Probe(SEEN, None, oom), oom)):
        finding = findings.of_training(probe, 1)
        assert finding.fatal and finding.text == f"no update: {text}"


SOFTWARE = Frames("egl", "llvmpipe (LLVM 15.0.6, 256 bits)", 2e8, 12.34)
NO_GL = Frames("", "", 0, 0, "no OpenGL that works was found: run `install it`")


@pytest.mark.parametrize(
    ("frames", "gpu", "chosen", "text", "advice"),
    [
        (SOFTWARE, False, "", "12.3 ms an agent step, egl, llvmpipe", ""),
        (SOFTWARE, True, "", "llvmpipe", "NVIDIA_DRIVER_CAPABILITIES must have graphics"),
        (SOFTWARE._replace(renderer="NVIDIA GeForce"), True, "", "NVIDIA", ""),
        (SOFTWARE._replace(renderer=""), True, "", "nothing is rendered", ""),
        (NO_GL._replace(error="ImportError: no EGL"), False, "egl", "no EGL", "unset it"),
        (NO_GL._replace(error="ImportError: x"), False, "", "ImportError: x", "install it"),
        (NO_GL, False, "", "install it", "again"),
    ],
)
def test_rendering(frames, gpu, chosen, text, advice):
    finding = findings.of_rendering(frames, gpu, chosen, "install it")
    assert text in finding.text and advice in finding.advice
    assert bool(finding.advice) == bool(advice)
    assert finding.fatal == bool(frames.error)


def test_memory_that_does_not_suffice():
    assert findings.of_memory(1e9, 2e9, limited=False) == Finding("1.00 GB needed, 2.00 GB free")
    own, limited = (findings.of_memory(2e9, 1e9, limited=limited) for limited in (False, True))
    assert own.fatal and limited.fatal and "this container" in limited.text


@pytest.mark.parametrize(
    ("free", "advised", "fatal"), [(3e9, False, False), (1.5e9, True, False), (5e8, True, True)]
)
def test_a_disk_that_may_or_will_be_full(free, advised, fatal):
    finding = findings.of_disk(2e9, 1e9, free, Path("/x"))
    assert (bool(finding.advice), finding.fatal) == (advised, fatal)
    assert "/x" in finding.text
