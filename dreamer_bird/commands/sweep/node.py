"""What a sweep does where a run goes on: starts it with its share of the machine, and waits.

`python -m dreamer_bird.commands.sweep.node PROGRAM FLAGS...` is the run's own process.
"""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from dreamer_bird.commands.sweep.machines import Share
from dreamer_bird.utils.processes import cause_of_end, for_child, run_python

LONGEST = 300  # characters of a reason
CUDA_DEVICE = 0x323A  # EGL_CUDA_DEVICE_NV


def train(command: list[str], folder: str, log: str, share: Share) -> tuple[int, str]:
    """Run a training command in `folder` until it ends; what it prints goes into `log`.

    `command` is the name of the program and its flags. Returns the exit status, minus the number
    of a signal, and the reason. KeyboardInterrupt, by which Ray cancels tasks, has SIGTERM sent to
    the run, whose end is awaited.
    """
    # Ray's interrupt is lost where SIGINT is ignored, as scripts do to what is in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = Path(folder, log)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            when, host = time.strftime("%Y-%m-%d %H:%M:%S"), socket.gethostname()
            file.write(os.fsencode(f"--- {when} on {host}: {shlex.join(command)}\n"))
            file.flush()
            start = file.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, *command],
                cwd=folder,
                env=environment(os.environ, share),
                stdin=subprocess.PIPE,  # whose end tells the run that this process is gone
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # or an interrupt typed at the terminal would reach it too
            )
        try:
            # An interrupt by Ray does not end a wait in the system, only what Python does after it.
            while process.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
        return process.returncode, _reason(process.returncode, path, start)
    except OSError as error:
        return 1, f"{socket.gethostname()}: {error}"


def environment(base: Mapping[str, str], share: Share) -> dict[str, str]:
    """Return the environment variables of a run: `base`, and those that keep it to its share."""
    variables = for_child(base)
    variables["PYTHONUNBUFFERED"] = "1"  # or the last line of the log would not be the error
    for name in ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM", "LP_NUM"):
        variables[f"{name}_THREADS"] = str(share.cpus)  # TensorFlow, NumPy, software renderer
    if not share.gpus:
        return variables | {"CUDA_VISIBLE_DEVICES": "-1"}
    # What TensorFlow does not use is left to the renderers, and to runs on the same GPU.
    variables["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # in which Ray counts
    # EGL's number of the GPU that Ray has assigned, asked for where all GPUs are visible.
    others = dict(variables)
    gpu = others.pop("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    code = f"from {__name__} import print_rendering_device as tell; tell({gpu!r})"
    if number := run_python(code, variables=others).stdout.strip():
        variables["MUJOCO_EGL_DEVICE_ID"] = number
    return variables


def main() -> int:
    """Train with the program's name and flags on the command line, as long as the starter lives.

    When that process is gone, which ends standard input, the run gets SIGTERM: it saves and ends.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which Ray's processes block
    threading.Thread(target=_stop_at_the_end_of_input, daemon=True).start()
    from dreamer_bird import main as run

    del sys.argv[0]
    return run()


def print_rendering_device(gpu: str) -> None:
    """Print which of EGL's devices the GPU with that number is, if any.

    MuJoCo counts EGL's devices, whose order need not be that of CUDA. Raises ImportError where
    there is no EGL.
    """
    from mujoco.egl import egl_ext

    address = egl_ext.eglGetProcAddress("eglQueryDeviceAttribEXT")
    integer, pointer = ctypes.c_int, ctypes.c_void_p
    query = ctypes.CFUNCTYPE(integer, pointer, integer, pointer)(address)
    for index, device in enumerate(egl_ext.eglQueryDevicesEXT()):
        number = ctypes.c_ssize_t()
        if query(device, CUDA_DEVICE, ctypes.byref(number)) and str(number.value) == gpu:
            print(index)


def _stop_at_the_end_of_input() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _reason(status: int, log: Path, start: int) -> str:
    """Word why a run ended: the signal, or the last line that it wrote."""
    if status < 0:
        return cause_of_end(status)
    said = log.read_bytes()[start:].decode(errors="replace").strip()
    return said.splitlines()[-1].strip()[:LONGEST] if said else "it said nothing"


if __name__ == "__main__":
    sys.exit(main())
