"""The settings of a coordinator: what they are, which values are allowed, and how they are loaded.

`load_settings` reads a TOML file and the environment in the spellings of every version of xaynet (spec 6.1, 6.2);
`Settings` checks every value. All errors name the key as it was written, the value and the rule. This file opens no
socket and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet.errors import MissingExtraError, SettingsError

with MissingExtraError.naming("http"):  # first: the modules below need pydantic too
    from pydantic import BaseModel, ValidationError

from pet.coordinator.round_sections import Sum2Settings, SumSettings, UpdateSettings
from pet.coordinator.setting_faults import Fault, describe_faults, find_contradictions, find_faults, without_consequences
from pet.coordinator.setting_names import RULES, SHIPPED, UNUSED, complete
from pet.coordinator.setting_sections import SettingsTree
from pet.coordinator.settings_sources import Written, WrittenSettings, flatten, nest, read_environment, read_file
from pet.mask_config import MaskConfigPair
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow


class Settings(SettingsTree):
    """All settings of a coordinator.

    Built from a tree of sections (`Settings(pet={"sum": {"prob": 0.4}}, model={"length": 1000})`); absent settings take
    the values of `setting_names.SHIPPED`, as with a file that does not have them. Reads no environment by itself:
    `load_settings` does.

    Raises:
        SettingsError: one line for each value that breaks its rule.
    """

    def __init__(self, written: Mapping[str, Written] | None = None, /, **sections: Any) -> None:
        """Check the values of a tree of sections.

        Args:
            written: full name -> the key that the user wrote, for errors.
            sections: of `SettingsTree`, each a mapping or a section of other settings.
        """
        checked, faults = check_settings({} if written is None else written, sections)
        if faults:
            raise SettingsError(describe_faults(faults, {} if written is None else written))
        super().__init__(**{name: getattr(checked, name) for name in SettingsTree.model_fields})

    @property
    def mask_config(self) -> MaskConfigPair:
        """The mask config of a round."""
        return self.mask.to_mask_config()

    @property
    def workers(self) -> int:
        """Threads that handle messages."""
        return self.service.workers or os.cpu_count() or 1

    def to_round_settings(self) -> RoundSettings:
        """Return what the protocol needs to know.

        Raises:
            ConfigError: the protocol refuses the combination.
        """
        phases = self.pet
        return RoundSettings(
            sum_probability=phases.sum.prob,
            update_probability=phases.update.prob,
            mask_config=self.mask_config,
            model_length=self.model.length,
            sum=_window(phases.sum),
            update=_window(phases.update),
            sum2=_window(phases.sum2),
            max_chunk_bytes=self.service.max_chunk_bytes,
            max_participant_chunk_bytes=self.service.max_participant_chunk_bytes,
            max_chunked_messages=self.service.max_chunked_messages,
            chunk_patience_seconds=self.service.chunk_patience_seconds,
        )


def check_settings(written: Mapping[str, Written], sections: Mapping[str, Any]) -> tuple[SettingsTree, dict[str, Fault]]:
    """Check the values of a tree of sections: each by itself, and against each other.

    Args:
        written: full name -> the key that the user wrote.
        sections: of `SettingsTree`, each a mapping or a section of other settings.

    Returns:
        The settings, with defaults in the place of faulty ones, and the faults: full name -> fault.
    """
    trees = {name: section.model_dump() if isinstance(section, BaseModel) else section for name, section in sections.items()}
    misplaced = {name: section for name, section in trees.items() if not isinstance(section, Mapping)}
    values = flatten({name: section for name, section in trees.items() if name not in misplaced})
    faults: dict[str, Fault] = {}
    try:
        checked = SettingsTree(**nest(complete(values)[0]) | misplaced)
    except ValidationError as error:
        faults = find_faults(error.errors())
        # One run is to report everything: what is right by itself is held against each other too.
        kept = {name: value for name, value in values.items() if name in RULES and name not in faults}
        checked = SettingsTree.model_validate(nest(complete(kept)[0]))
    return checked, without_consequences(find_contradictions(checked, faults) | faults, written or values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSettings:
    """Settings together with where each came from.

    Attributes:
        settings: the checked settings.
        origins: full name -> "min_sum_count in the file", "PET__MODEL__LENGTH in the environment", or why nobody wrote it.
        warnings: what was ignored or is not used, one sentence each.
    """

    settings: Settings
    origins: dict[str, str]
    warnings: list[str]


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Load settings from a TOML file, if any, and the environment, which wins.

    Raises:
        SettingsError: the file cannot be read, or values break their rules, one line each.
    """
    return load_settings_with_origins(path, environ).settings


def load_settings_with_origins(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    defaults: Mapping[str, Any] = SHIPPED,
    find_more: Callable[[SettingsTree], Mapping[str, Fault]] = lambda _: {},
) -> LoadedSettings:
    """Load settings as `load_settings` does, and say where each value came from and what was ignored.

    Args:
        path: a TOML file; None reads the environment alone.
        environ: as `os.environ`.
        defaults: full name -> value of an absent setting: `SHIPPED`, or `WITHOUT_FILE`.
        find_more: returns faults beyond the values, such as servers that are away; it gets the settings with defaults in the
            place of faulty ones, so that one run reports everything.

    Raises:
        SettingsError: as `load_settings`; or `find_more` found something.
    """
    environment = read_environment(environ)
    file = WrittenSettings() if path is None else read_file(path)
    written = file.by_name | environment.by_name
    lines = [*file.faults, *environment.faults]
    values, reasons = complete({name: item.value for name, item in written.items()}, defaults)
    checked, faults = check_settings(written, nest(values))
    faults = {**find_more(checked), **faults}
    if lines or faults:
        misspelt = [*file.misspelt, *environment.misspelt]
        raise SettingsError("\n".join(filter(None, [*lines, describe_faults(faults, written), *misspelt])))
    settings = Settings(written, **nest(values))
    origins = {name: f"{item.key} in the {item.place}" for name, item in written.items()} | reasons
    return LoadedSettings(
        settings=settings, origins=origins, warnings=[*file.warnings, *environment.warnings, *_notices(settings, written)]
    )


def _window(phase: SumSettings | UpdateSettings | Sum2Settings) -> PhaseWindow:
    return PhaseWindow(
        min_count=phase.count.min, max_count=phase.count.max, min_seconds=phase.time.min, max_seconds=phase.time.max
    )


def _notices(settings: Settings, written: Mapping[str, Written]) -> list[str]:
    """Say what is accepted but will not happen."""
    notices = [f"{item.key}: accepted, but not used by this release" for name, item in written.items() if name in UNUSED]
    if settings.pet.is_pet1:
        unused = [item.key for name, item in written.items() if name.startswith("mask.") or name.endswith(".prob")]
        return notices + [f"{key}: not used in rounds of pet/1" for key in unused]
    models, most = settings.mask_config.max_model_count, settings.pet.update.count.max
    if most > models and "pet.update.count.max" in written:
        notices.append(
            f"pet.update.count.max is {most}, but mask.model_type allows {models} models: updates beyond them are refused"
        )
    return notices
