"""Processes of Python: they find the package, and what ended them is told."""

import os
import signal
import subprocess
import sys

import pytest
from sweeping import assert_gone

from dreamer_bird.utils.processes import (
    cause_of_end,
    error_line,
    failure,
    for_child,
    run_python,
    signal_behind,
)


def test_the_package_comes_before_other_places(tmp_path):
    first, *others = for_child({"A": "b"})["PYTHONPATH"].split(os.pathsep)
    assert os.path.exists(os.path.join(first, "dreamer_bird", "cli.py")) and not others
    assert for_child({"A": "b", "PYTHONPATH": "/x"}) == {
        "A": "b",
        "PYTHONPATH": f"{first}{os.pathsep}/x",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="needs the signal of Linux")
def test_a_child_is_no_host_of_others_and_ends_with_its_parent():
    assert "TF_CONFIG" not in for_child({"TF_CONFIG": "{}"})
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    parent = "import subprocess, sys; from dreamer_bird.utils.processes import bound\n"
    parent += f"subprocess.run([sys.executable, '-c', bound({child!r})])"
    line = [sys.executable, "-c", parent]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=for_child(os.environ), stdout=pipe, text=True) as process:
        number = int(process.stdout.readline())
        process.kill()
        assert_gone([number], 20)


def test_code_runs_with_the_package_and_with_what_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys, dreamer_bird; print(sys.argv[1:], os.environ.get('A'))"
    assert run_python(code, "x y", variables={"A": "b"}).stdout == "['x y'] b\n"
    monkeypatch.setenv("A", "c")
    assert run_python(code).stdout == "[] c\n"
    with pytest.raises(subprocess.TimeoutExpired):
        run_python("import time; time.sleep(9)", timeout=0.2)


def test_what_ended_a_process():
    code = "import os; os.kill(os.getpid(), {})"
    killed = run_python(code.format(signal.SIGKILL.value)).returncode
    assert (signal_behind(killed), cause_of_end(killed)) == (
        "SIGKILL",
        "ended by SIGKILL; was memory short?",
    )
    assert cause_of_end(run_python(code.format(signal.SIGTERM.value)).returncode) == (
        "ended by SIGTERM"
    )
    assert failure(run_python(code.format(signal.SIGTERM.value))) == "ended by SIGTERM"
    assert [signal_behind(status) for status in (None, 0, 3, -40)] == ["", "", "", "SIG40"]
    assert cause_of_end(3) == ""


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (
            "Traceback:\n  x\nnumpy.linalg.LinAlgError: singular\nbye\n\n",
            "numpy.linalg.LinAlgError: s",
        ),
        ("ValueError: first\nKeyError: 'second'\n", "KeyError: 'second'"),
        ("an Error of another kind\nlast\n", "last"),
        ("", "it says nothing"),
    ],
)
def test_the_line_that_tells_why_a_process_failed(stderr, line):
    done = subprocess.CompletedProcess([], 1, "", stderr)
    assert failure(done) == error_line(stderr) and failure(done).startswith(line)
