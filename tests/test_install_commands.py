"""Errors and documents name an installation that works today: from the clone or the wheel, until the package index has pet."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pet
from pet import _extras

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def command_where_installed_from(record, folder):
    """Return the command of a process that finds the metadata of an installation with this direct_url.json."""
    metadata = folder / "site" / "pet_protocol-9.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pet-protocol\nVersion: 9\n")
    egg_info = folder / "clone" / "pet_protocol.egg-info"
    egg_info.mkdir(parents=True)
    (egg_info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: pet-protocol\nVersion: 9\n")
    if record is not None:
        (metadata / "direct_url.json").write_text(record)
    # By its path, in isolation: pet itself, and the record of its installation, must not be found.
    places = [str(egg_info.parent), str(metadata.parent)]
    code = f"import runpy, sys; sys.path[:0] = {places!r}; names = runpy.run_path({_extras.__file__!r})"
    code += "; print(names['install_command']('nats'))"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def test_it_names_where_pet_came_from(tmp_path):
    place = tmp_path / "a clone"
    place.mkdir()
    in_a_clone = "pip install '.[nats]' in a clone of pet"
    for number, (record, expected) in enumerate(
        [
            (json.dumps({"url": place.as_uri(), "dir_info": {"editable": True}}), f"pip install -e '{place}[nats]'"),
            (json.dumps({"url": place.as_uri(), "dir_info": {}}), f"pip install '{place}[nats]'"),
            (json.dumps({"url": place.as_uri() + "/gone.whl", "archive_info": {}}), in_a_clone),
            (json.dumps({"url": "https://user:password@host.example/pet.whl", "archive_info": {}}), in_a_clone),
            ("[]", in_a_clone),
            ("no JSON", in_a_clone),
            (None, in_a_clone),
        ]
    ):
        assert command_where_installed_from(record, tmp_path / str(number)) == expected


def test_once_published_it_names_the_distribution(monkeypatch):
    monkeypatch.setattr(_extras, "PUBLISHED", True)
    assert _extras.install_command("nats") == "pip install 'pet-protocol[nats]'"
    assert PROJECT["name"] == _extras.DISTRIBUTION


@pytest.mark.skipif(_extras.PUBLISHED, reason="the package index has pet")
def test_no_document_installs_from_an_index_that_does_not_have_pet():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    found = [
        (page.name, line)
        for page in pages
        for line in page.read_text().splitlines()
        if re.search(r"install\b.*pet-protocol", line)
    ]
    assert found == []


def test_every_extra_in_a_document_exists():
    extras = {
        name
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for name in re.findall(r"'\.\[([\w,]+)\]'", page.read_text())
    }
    assert {part for name in extras for part in name.split(",")} <= set(PROJECT["optional-dependencies"])


def test_the_version_is_the_same_everywhere():
    assert PROJECT["version"] == pet.__version__
