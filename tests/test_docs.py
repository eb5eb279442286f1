"""The site: strictly built, with every setting, every logged key and no link into nothing."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer_bird.config import RULES, load

ROOT = Path(__file__).parents[1]


def build(site, root=ROOT):
    pytest.importorskip("material", reason="`make docs` installs what builds the site")
    pytest.importorskip("mkdocstrings")
    line = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=100)


def text(page):
    return re.sub(r"<[^>]*>", "", page.read_text())


def test_the_site_is_built_strictly(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    settings = text(tmp_path / "settings.html").splitlines()
    assert set(RULES) <= set(settings)
    assert str(load().objective.horizon) == settings[settings.index("objective.horizon") + 1]
    page = (tmp_path / "settings.html").read_text()
    assert "<td>dmc_&lt;domain&gt;_&lt;task&gt;, gym_&lt;EnvId&gt;, " in page
    assert "what the last call returned; None where an episode begins" in text(
        tmp_path / "library.html"
    )
    assert "BIRD (Bridging Imagination and Reality, NeurIPS 2020)" in text(tmp_path / "index.html")


def test_a_broken_link_fails(tmp_path):
    other = shutil.ignore_patterns(".git", ".venv", "logdir", "build", "*.jsonl", "__pycache__")
    root = shutil.copytree(ROOT, tmp_path / "root", ignore=other)
    with (root / "docs" / "logs.md").open("a") as page:
        page.write("[nowhere](nowhere.md)")
    done = build(tmp_path / "site", root)
    assert done.returncode != 0 and "nowhere.md" in done.stderr


def test_every_key_of_a_log_is_explained(tiny_run):
    page = (ROOT / "docs" / "logs.md").read_text()
    lines = map(json.loads, (tiny_run / "metrics.jsonl").read_text().splitlines())
    keys = {key.replace("seconds/", "") for line in lines for key in line}
    assert len(keys) > 30
    unknown = {key for key in keys if f"`{key}`" not in page and not key.endswith("_new")}
    assert not unknown


def test_make_help_lists_every_target():
    line = ["make", "--no-print-directory", "help"]
    told = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    (targets,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in told.stdout.splitlines()] == targets.split()


def test_the_readme_is_read_in_a_minute():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.split()) <= 900
    assert max(map(len, readme.splitlines())) <= 100
