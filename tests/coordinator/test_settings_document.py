"""docs/settings.md names every setting."""

from pathlib import Path

from pet.coordinator.setting_names import RULES

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_every_setting_is_documented():
    text = DOCUMENT.read_text()
    assert [name for name in RULES if f"`{name}`" not in text] == []
