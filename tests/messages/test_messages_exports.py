"""The public list of pet.messages is what it exports."""

from __future__ import annotations

from types import ModuleType

import pet.messages


def test_all_lists_what_is_exported() -> None:
    exported = [
        name for name, value in vars(pet.messages).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(pet.messages.__all__) == sorted(exported)
