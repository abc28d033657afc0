"""Write the tables in docs/settings.md from the fields of the coordinator's settings (pet/coordinator/*_sections.py).

Run it after a change of a field; a test fails until the document is up to date. It reads and writes that one document.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from pet.coordinator.setting_field import Setting
from pet.coordinator.setting_names import SETTINGS

DOCUMENT: Final = Path(__file__).parent / "settings.md"
_HEAD: Final = "| setting | older names | value | if absent | what it does |\n|---|---|---|---|---|\n"


def markers(section: str) -> tuple[str, str]:
    """Return the lines between which the table of a section stands."""
    return f"<!-- section {section}: begin, made by docs/make_settings.py -->\n", f"<!-- section {section}: end -->\n"


def table(section: str) -> str:
    """Return the settings of one section, a row each."""
    return _HEAD + "".join(_row(declared) for name, declared in SETTINGS.items() if name.split(".")[0] == section)


def with_generated_parts(document: str) -> str:
    """Return the document with the tables of the settings as they are now.

    Raises:
        ValueError: the markers of a section are missing, or a section has none of the settings.
    """
    sections = list(dict.fromkeys(name.split(".")[0] for name in SETTINGS))
    marked = re.findall(r"<!-- section (\w+): begin", document)
    if sorted(marked) != sorted(sections):
        raise ValueError(f"docs/settings.md: expected markers of the sections {sections}, got {marked}")
    for section in sections:
        begin, end = markers(section)
        before, _, rest = document.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/settings.md: expected the marker {end.strip()!r} after the table")
        document = f"{before}{begin}{table(section)}{end}{after}"
    return document


def _row(declared: Setting) -> str:
    older = ", ".join(f"`{name}`" for name in declared.older)
    # A rule names its default beside it; here that has a column of its own.
    rule = declared.rule.removesuffix(f" (absent: {declared.absent})").replace("|", "\\|")
    note = " Accepted, without effect in this release." if declared.is_unused else ""
    return f"| `{declared.name}` | {older} | {rule} | {_absent(declared)} | {declared.help}{note} |\n"


def _absent(declared: Setting) -> str:
    if declared.follows:
        return f"as `{declared.follows}`"
    if declared.default is None:
        return declared.absent or "none"
    default = _text(declared.default)
    return default if declared.without_file is None else f"{default}; without a settings file {_text(declared.without_file)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    DOCUMENT.write_text(with_generated_parts(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
