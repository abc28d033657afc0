"""The site builds without a warning, and every public name is in its reference."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pet

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_the_site_builds_without_a_warning_and_has_every_public_name(tmp_path):
    if importlib.util.find_spec("sphinx") is None and os.environ.get("CI") != "true":
        pytest.skip("without sphinx (the extra docs)")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", tmp_path / "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    reference = (tmp_path / "site" / "reference.html").read_text()
    missing = [name for name in pet.__all__ if name != "__version__" and f'.{name}"' not in reference]
    assert missing == []


def test_every_page_is_in_the_table_of_contents():
    listed = set((ROOT / "docs" / "index.md").read_text().split())
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    assert {page for page in pages if not page.startswith("decisions/")} - {"index"} <= listed
