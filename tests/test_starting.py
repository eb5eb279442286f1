"""Every way to start a run: as a module, from standard input, in a thread, in a script."""

import os

from command_line import python

from dreamer_bird.config import Config

# Random episodes alone, which are quick.
FLAGS = ["--configs", "debug", "--task", "gym_Pendulum-v1", "--obs", "state"]
FLAGS += ["--train.prefill", "9999", "--steps", "200", "--logdir", "run"]
THREAD = f"""
from concurrent.futures import ThreadPoolExecutor
from dreamer_bird import main
if __name__ == "__main__":
    with ThreadPoolExecutor(1) as pool:
        print("status", pool.submit(main, {FLAGS}).result())
"""


def test_a_run_needs_no_script_in_a_file_and_no_main_thread(tmp_path):
    done = python("-", cwd=tmp_path, text=THREAD)
    assert done.stdout.splitlines()[-2:] == ["finished at step 200: run", "status 0"], done.stderr


def test_the_package_is_a_command_and_a_name_of_any_bytes_a_logdir(tmp_path):
    module, logdir = ("-m", "dreamer_bird"), os.fsdecode(b"caf\xe9-\xff")
    for steps in ("200", "400"):
        flags = [*FLAGS, "--steps", steps, "--logdir", logdir]
        done = python(*module, *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith(f"finished at step {steps}: caf")
    assert "resumed at step 200" in done.stdout
    assert Config.read(tmp_path / logdir / "config.yaml").logdir == logdir
    assert list((tmp_path / logdir).glob("events.out.tfevents.*"))
    done = python(*module, "report", logdir, "--out", f"{logdir}/page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_script_that_its_workers_would_run_again_is_told_how_it_must_be(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nfrom dreamer_bird import main\nsys.exit(main({FLAGS}))\n")
    done = python(script, cwd=tmp_path)
    assert done.returncode == 1
    assert "script.py: environments live in processes that import the script again" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_a_factory_that_no_worker_could_import_is_refused(tmp_path):
    code = "from dreamer_bird import register\ndef make(): pass\nregister('mine', make)\n"
    for arguments, text in ((["-"], code), (["-c", code], None)):
        error = python(*arguments, cwd=tmp_path, text=text).stderr
        assert "ConfigError: register('mine'): " in error and "which is a file" in error
