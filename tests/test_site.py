"""The site builds without a warning, its links lead somewhere, and every public name is in its reference."""

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import pet
from pet.federation import Client
from pet.participant import TickParticipant

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs/notebooks").glob("*.py"),
    *(ROOT / "examples").glob("*.py"),
]


class Page(HTMLParser):
    """What a page of the site links to, and what may be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.anchors.add(named.get("id"))
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])


def built(folder, theme):
    """Build the site; return its pages by path."""
    if importlib.util.find_spec("sphinx") is None and os.environ.get("CI") != "true":
        pytest.skip("without sphinx (the extra docs)")
    # Without the extension that shows the sources of modules, which no page links to by hand: a quarter of the time.
    extensions = "-Dextensions=myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon"
    options = ["-q", "-W", "--keep-going", "-b", "html", extensions, f"-Dhtml_theme={theme}"]
    command = [sys.executable, "-m", "sphinx", *options, ROOT / "docs", folder]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return {path.resolve(): Page(path) for path in folder.rglob("*.html")}


#: What imports a framework that the site is built without; the pages about them say what is there.
NEEDS_FRAMEWORK = ("pet.adapters.torch", "pet.flower.")


def imported_names():
    """Return the names that documents import from pet, and the reference can have."""
    for path in DOCUMENTS:
        for module, names in re.findall(r"^from (pet[\w.]*) import ([\w, ]+)", path.read_text(), re.MULTILINE):
            found = (f"{module}.{name.strip().partition(' as ')[0]}" for name in names.split(","))
            yield from (name for name in found if not name.startswith(NEEDS_FRAMEWORK))


@pytest.mark.parametrize(
    "theme", [pytest.param("basic", marks=pytest.mark.long), pytest.param("furo", marks=pytest.mark.very_long)]
)
def test_it_builds_and_has_what_it_promises(theme, tmp_path):
    """One test, because one build takes half a minute of CPU; the site's own theme takes a quarter of it."""
    site = built(tmp_path, theme)
    assert undescribed_names(site) == set()
    assert broken_links(site) == []


def undescribed_names(site):
    """Return public names, and those that documents import, which the reference does not have."""
    (reference,) = [page for path, page in site.items() if path.name == "reference.html"]
    described = {anchor for anchor in reference.anchors if anchor}
    shown = {anchor.rpartition(".")[2] for anchor in described}
    paths = {".".join(anchor.split(".")[:count]) for anchor in described for count in range(1, 5)}
    imported = set(imported_names())
    assert len(imported) > 20
    public = {f"pet.{name}" for name in pet.__all__ if name != "__version__"}
    # What these two do stands in several classes, by what it is about.
    calls = {f"pet.federation.Client.{name}" for name in dir(Client)}
    calls |= {f"pet.participant.TickParticipant.{name}" for name in dir(TickParticipant)}
    inherited = {name for name in calls - described if not name.rpartition(".")[2].startswith("_")}
    return inherited | {name for name in public | imported if name not in paths and name.rpartition(".")[2] not in shown}


def broken_links(site):
    """Return page and target of links that lead to no file, or to no anchor of one."""
    broken = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = site[target].anchors if target in site else None
            if not target.exists() or (parts.fragment and known is not None and unquote(parts.fragment) not in known):
                broken.append((path.name, link))
    return broken


def test_every_page_is_in_the_table_of_contents():
    listed = set((ROOT / "docs" / "index.md").read_text().split())
    files = [*(ROOT / "docs").glob("**/*.md"), *(ROOT / "docs/notebooks").glob("*.py"), *(ROOT / "docs").glob("**/*.ipynb")]
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in files}
    assert {page for page in pages if not page.startswith("decisions/0")} - {"index"} <= listed
