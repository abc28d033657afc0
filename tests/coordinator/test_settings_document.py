"""docs/settings.md says what the fields of the settings say."""

import importlib.util
from pathlib import Path

import pytest

from pet.coordinator.setting_names import RULES, SETTINGS

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "settings.md"


def load_script():
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_is_documented():
    text = DOCUMENT.read_text()
    assert [name for name in RULES if f"`{name}`" not in text] == []


def test_the_document_is_made_from_the_fields():
    document = DOCUMENT.read_text(encoding="utf-8")
    assert load_script().with_generated_parts(document) == document, "run docs/make_settings.py"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_does_and_what_its_absence_means(name):
    declared = SETTINGS[name]
    assert declared.help.endswith(".")
    assert declared.follows == "" or declared.follows in SETTINGS
    assert (declared.default is None) or not (declared.absent or declared.follows)


@pytest.mark.parametrize("damage", [("section mask: begin", "section masks: begin"), ("section mask: end", "nothing")])
def test_a_document_without_its_markers_is_refused(damage):
    with pytest.raises(ValueError, match=r"docs/settings\.md: expected"):
        load_script().with_generated_parts(DOCUMENT.read_text(encoding="utf-8").replace(*damage))
