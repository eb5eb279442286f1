"""Chooses the OpenGL for rendering; `run.py doctor --part rendering` tries it out."""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from ctypes.util import find_library
from functools import cache, partial
from typing import NamedTuple

from dreamer_bird.errors import RunError

BACKENDS = ("egl", "osmesa", "glfw")  # as MuJoCo names them; the first that works is taken
NO_BACKEND = "disabled"  # as MuJoCo names it
INSTALL_COMMAND = "sudo apt-get install libegl1 libgl1-mesa-dri libopengl0"
# What else MuJoCo and dm_control take for MUJOCO_GL.
_WORDS = dict.fromkeys(("disable", "off", "false", "0"), NO_BACKEND)
_WORDS |= dict.fromkeys(("on", "enable", "enabled", "true", "1"), "")
_WORDS |= dict.fromkeys(("glx", "cgl", "wgl"), "glfw")


class RenderingError(RunError):
    """No frame can be rendered on this machine; the message says what to install."""


class OpenGL(NamedTuple):
    """An OpenGL, as MUJOCO_GL has it, and why none can be used, "" if one can."""

    backend: str
    problem: str = ""


@cache
def opengl() -> OpenGL:
    """Return the OpenGL that MUJOCO_GL asks for, or one that works here; found out once."""
    value = os.environ.get("MUJOCO_GL", "")
    asked = value.lower().strip()
    asked = _WORDS.get(asked, asked)
    if asked == NO_BACKEND:
        return OpenGL(NO_BACKEND, f"MUJOCO_GL={value} is set: unset it")
    if asked not in ("", *BACKENDS):
        words = f"choose from {', '.join(BACKENDS)}, or unset it"
        return OpenGL(NO_BACKEND, f"MUJOCO_GL={value}: {words}")
    if sys.platform in ("darwin", "win32"):
        return OpenGL("glfw")
    if asked in ("", "egl") and (problem := _device_problem()):
        return OpenGL(NO_BACKEND, problem)
    preferred = asked or os.environ.get("PYOPENGL_PLATFORM", "").lower()
    for backend in sorted(BACKENDS, key=lambda backend: backend != preferred):
        problem = _problem_of(backend)
        if not problem:
            return OpenGL(backend)
        if asked:
            return OpenGL(NO_BACKEND, f"MUJOCO_GL={value}: {problem}: unset it")
    return OpenGL(NO_BACKEND, f"no OpenGL that works was found: run `{INSTALL_COMMAND}`")


def prepare_opengl() -> None:
    """Set the variables that simulators read when they are imported, such that they agree."""
    os.environ["MUJOCO_GL"] = backend = opengl().backend
    if backend != NO_BACKEND:
        os.environ.pop("PYOPENGL_PLATFORM", None)  # MuJoCo sets it where it has to be
    if not os.environ.get("MUJOCO_EGL_DEVICE_ID", "0").strip():
        del os.environ["MUJOCO_EGL_DEVICE_ID"]


def mend(text: str, chosen: str | None) -> str:
    """Return what may help against an error, with MUJOCO_GL as it was; "" if it says so."""
    if "MUJOCO_" in text or INSTALL_COMMAND in text:
        return ""
    return f"MUJOCO_GL={chosen} is set: unset it" if chosen else f"if OpenGL: {INSTALL_COMMAND}"


def _device_problem() -> str:
    """Say why the device that MUJOCO_EGL_DEVICE_ID names cannot be used, "" if it can."""
    chosen, devices = os.environ.get("MUJOCO_EGL_DEVICE_ID", "").strip(), _egl_devices()
    if not chosen or not devices:
        return ""
    if chosen.isdecimal() and int(chosen) < len(devices) and devices[int(chosen)]():
        return ""
    valid = ", ".join(str(number) for number, works in enumerate(devices) if works())
    return f"MUJOCO_EGL_DEVICE_ID={chosen}: choose from {valid or 'none'}, or unset it"


def _problem_of(backend: str) -> str:
    """Say why an OpenGL cannot be used here, "" if it can."""
    if backend == "osmesa":
        return "" if find_library("OSMesa") else "there is no library OSMesa"
    if backend == "egl":
        # The library alone proves nothing: without a driver behind it no display is initialized.
        return "" if any(works() for works in _egl_devices()) else "no EGL device can be used"
    works = False
    with warnings.catch_warnings(), suppress(Exception):  # its library may be missing
        warnings.simplefilter("ignore")  # which is how it says why
        import glfw

        works = glfw.init()
    display = os.environ.get("DISPLAY") or "not set"
    return "" if works else f"no display answers, DISPLAY is {display}"


def _egl_devices() -> list[Callable[[], bool]]:
    """Return for each device of EGL what tells whether it can be used, by trying."""
    if not (find_library("EGL") and (find_library("OpenGL") or find_library("GL"))):
        return []
    egl = ctypes.CDLL(find_library("EGL"))
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    names = b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT"
    addresses = [*map(egl.eglGetProcAddress, names)]
    if not all(addresses):
        return []
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    query_devices = ctypes.CFUNCTYPE(integer, integer, pointer, pointer)(addresses[0])
    get_display = ctypes.CFUNCTYPE(pointer, integer, pointer, pointer)(addresses[1])
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    devices, count = (pointer * 16)(), integer(0)
    query_devices(len(devices), devices, ctypes.byref(count))
    platform_device = 0x313F  # EGL_PLATFORM_DEVICE_EXT

    def works(device: int) -> bool:
        display = get_display(platform_device, device, None)
        return bool(display and egl.eglInitialize(display, None, None))

    return [partial(works, device) for device in devices[: count.value]]
