"""What `--precision auto` chooses, on machines that are made up."""

import pytest
import tensorflow as tf

from dreamer_bird.agent import precision
from dreamer_bird.agent.precision import resolve_precision


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [((7, 5), "float16"), ((8, 0), "bfloat16"), ((10, 0), "bfloat16"), (None, "float16")],
)
def test_a_gpu_decides_by_its_compute_capability(monkeypatch, capability, chosen):
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["one", "another"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    assert resolve_precision("auto") == chosen
    assert resolve_precision("float32") == "float32"


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [("fpu amx_bf16", "bfloat16"), ("avx512_bf16 fpu", "bfloat16"), ("fpu avx512f", "float32")],
)
def test_a_cpu_decides_by_its_instructions(monkeypatch, tmp_path, flags, chosen):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: one\nflags\t\t: {flags}\nbugs\t\t:\n")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(precision, "Path", lambda name: cpuinfo)
    assert resolve_precision("auto") == chosen
    cpuinfo.unlink()  # as elsewhere than on Linux
    assert resolve_precision("auto") == "float32"
