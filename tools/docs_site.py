"""Hooks of MkDocs: pages from outside of docs/, and the settings as configs.yaml explains them."""

import html
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # also where the package is not installed
# What pages link to, at the same place in the site as in the checkout.
OUTSIDE = (
    *("CONTRIBUTING.md", "LICENSE", "CITATION.cff", "configs.yaml", "baselines/*"),
    *(
        "results/*.png",
        "results/*/NOTE.md",
        "results/*/*.png",
        "results/*/*.gif",
        "results/*/*.txt",
        "results/*/*.json",
        "results/*/run/metrics.jsonl",
        "examples/*.*",
        "examples/*/config.yaml",
        "deploy/*",
    ),
)
SETTINGS = "<!-- settings -->"


def on_files(files, config):
    """Add README.md as the first page, and the files outside of docs/."""
    pages = {
        path.relative_to(ROOT).as_posix(): path for each in OUTSIDE for path in ROOT.glob(each)
    }
    for name, path in {"index.md": ROOT / "README.md", **pages}.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links where `on_files` has put their targets; fill in the settings."""
    markdown = re.sub(r"\]\((?:\.\./README\.md|README\.md)", "](index.md", markdown)
    if page.file.src_uri.count("/") == 0:
        markdown = re.sub(r"\]\((\.\./|docs/)", "](", markdown)
    return markdown.replace(SETTINGS, "\n".join(settings_tables()))


def settings_tables() -> Iterator[str]:
    """Yield lines of Markdown: presets, variants, then a table of each group of settings."""
    from dreamer_bird.cli import explained, grouped

    settings, variants, presets = explained()
    yield from _table("Presets", ("`--configs`", "what for"), presets.items())
    yield from _table("Variants", ("`--variant`", "settings"), variants.items())
    for title, names in grouped(settings).items():
        rows = ((f"{name}` | `{settings[name][0]}", settings[name][1]) for name in names)
        yield from _table(title.capitalize(), ("setting", "default", "what it does"), rows)


def _table(title: str, head: Sequence[str], rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from (f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    for code, text in rows:
        literal = re.sub("[_*|]", r"\\\g<0>", html.escape(text, quote=False))
        yield f"| `{code}` | {literal} |"
    yield ""
