"""Chooses the OpenGL for rendering; `python -m dreamer_bird.envs.rendering` tries it out."""

import ctypes
import os
import sys
import time
from ctypes.util import find_library

from dreamer_bird.errors import RunError

BACKENDS = ("egl", "glfw", "osmesa")  # as dm_control names them
NO_BACKEND = "disabled"  # as dm_control names it
INSTALL_COMMAND = "sudo apt-get install libegl1 libgl1-mesa-dri libopengl0"
NOT_FOUND = f"no OpenGL that works was found: run `{INSTALL_COMMAND}`"


class RenderingError(RunError):
    """No frame can be rendered on this machine; the message says what to install."""


def select_backend(required: bool = True) -> str:
    """Return the value for MUJOCO_GL: the one that is set, or else one that works here.

    Where there is none it is `NO_BACKEND`, or `RenderingError` is raised if one is `required`.
    """
    if backend := os.environ.get("MUJOCO_GL"):
        if backend not in BACKENDS:
            raise RenderingError(
                f"MUJOCO_GL={backend}: choose from {', '.join(BACKENDS)}, or unset it"
            )
        return backend
    if sys.platform in ("darwin", "win32"):
        return "glfw"
    if _egl_works():
        return "egl"
    if find_library("OSMesa"):
        return "osmesa"
    if required:
        raise RenderingError(NOT_FOUND)
    return NO_BACKEND


def _egl_works() -> bool:
    # The library alone proves nothing: without a driver behind it no display can be initialized.
    if not (find_library("EGL") and (find_library("OpenGL") or find_library("GL"))):
        return False
    egl = ctypes.CDLL(find_library("EGL"))
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    addresses = [
        egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")
    ]
    if not all(addresses):
        return False
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query_devices = ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(addresses[0])
    get_display = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(addresses[1])
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    devices, count = (pointer * 16)(), integer(0)
    query_devices(len(devices), devices, ctypes.byref(count))
    platform_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT
    displays = (get_display(platform_device, device, None) for device in devices[: count.value])
    return any(display and egl.eglInitialize(display, None, None) for display in displays)


def main(frames: int = 20) -> int:
    """Render frames and print one line: how fast, or what to install; return the exit status."""
    from dreamer_bird.envs import make_env

    chosen = os.environ.get("MUJOCO_GL")
    try:
        env = make_env("dmc_pendulum_swingup")
        env.reset(seed=0)
        start = time.perf_counter()
        for _ in range(frames):
            env.step(env.action_space.sample())
        milliseconds = (time.perf_counter() - start) / frames * 1000
    except Exception as error:  # Whatever is missing, the driver's stack has its own exception.
        line = " ".join(str(error).split())
        if chosen in BACKENDS:
            line += f" (with MUJOCO_GL={chosen}: unset it to use an OpenGL that works)"
        elif not chosen and INSTALL_COMMAND not in line:
            line += f": run `{INSTALL_COMMAND}`"
        print(f"rendering: {line}", file=sys.stderr)
        return 1
    print(f"rendering: {os.environ['MUJOCO_GL']}, {milliseconds:.1f} ms a frame")
    return 0


if __name__ == "__main__":
    sys.exit(main())
