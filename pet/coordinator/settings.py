"""The settings of a coordinator: what they are, which values are allowed, and how they are loaded.

`load_settings` reads a TOML file and the environment in the spellings of every version of xaynet (spec 6.1, 6.2);
`Settings` checks every value. All errors name the key as it was written, the value and the rule. This file opens no
socket and starts nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from pet.errors import ConfigError, MissingExtraError, SettingsError

with MissingExtraError.naming("http"):  # first: the modules below need pydantic too
    from pydantic import BaseModel, ValidationError, model_validator
    from pydantic_core import ErrorDetails, PydanticCustomError

from pet.coordinator.round_sections import Sum2Settings, SumSettings, UpdateSettings
from pet.coordinator.setting_names import RULES, SECRET, SHIPPED, UNUSED, complete
from pet.coordinator.setting_sections import ApiSettings, SettingsTree
from pet.coordinator.settings_sources import Written, WrittenSettings, flatten, nest, read_environment, read_file
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

#: A longer value says no more in an error, and may be a whole file.
_MAX_SHOWN_CHARACTERS: Final = 200


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
        trees = {
            name: section.model_dump() if isinstance(section, BaseModel) else section for name, section in sections.items()
        }
        misplaced = {name: section for name, section in trees.items() if not isinstance(section, Mapping)}
        values, _ = complete(flatten({name: section for name, section in trees.items() if name not in misplaced}))
        try:
            super().__init__(**nest(values) | misplaced)
        except ValidationError as error:
            raise SettingsError("\n".join(_describe_all(error.errors(), written or {}))) from None

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        violations = list(_broken_rules(self))
        if violations:
            raise PydanticCustomError("rules", "settings contradict each other", {"violations": violations})
        return self

    @property
    def mask_config(self) -> MaskConfigPair:
        """The mask config of a round."""
        mask = self.mask
        return MaskConfigPair.of(MaskConfig(mask.group_type, mask.data_type, mask.bound_type, mask.model_type))

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
    path: Path | None, environ: Mapping[str, str], *, defaults: Mapping[str, Any] = SHIPPED
) -> LoadedSettings:
    """Load settings as `load_settings` does, and say where each value came from and what was ignored.

    Args:
        path: a TOML file; None reads the environment alone.
        environ: as `os.environ`.
        defaults: full name -> value of an absent setting: `SHIPPED`, or `WITHOUT_FILE`.

    Raises:
        SettingsError: as `load_settings`.
    """
    environment = read_environment(environ)
    file = WrittenSettings() if path is None else read_file(path)
    written = file.by_name | environment.by_name
    faults = [*file.faults, *environment.faults]
    values, reasons = complete({name: item.value for name, item in written.items()}, defaults)
    try:
        settings = Settings(written, **nest(values))
    except SettingsError as error:
        raise SettingsError("\n".join([*faults, str(error)])) from None
    if faults:
        raise SettingsError("\n".join(faults))
    origins = {name: f"{item.key} in the {item.place}" for name, item in written.items()} | reasons
    return LoadedSettings(
        settings=settings, origins=origins, warnings=[*file.warnings, *environment.warnings, *_notices(settings, written)]
    )


def _window(phase: SumSettings | UpdateSettings | Sum2Settings) -> PhaseWindow:
    return PhaseWindow(
        min_count=phase.count.min, max_count=phase.count.max, min_seconds=phase.time.min, max_seconds=phase.time.max
    )


def _broken_rules(settings: Settings) -> Iterator[tuple[str, Any, str]]:
    """Yield (full name, value, what was expected) for each setting that contradicts another one.

    xaynet's "starvation" rule, 0 < s + u - s*u <= 1, needs no check: it follows from the ranges of the probabilities.
    """
    phases = settings.pet
    windows: dict[str, SumSettings | UpdateSettings | Sum2Settings] = {
        "sum": phases.sum,
        "update": phases.update,
        "sum2": phases.sum2,
    }
    for phase, window in windows.items():
        for kind, limits in (("count", window.count), ("time", window.time)):
            if limits.min > limits.max:
                yield f"pet.{phase}.{kind}.max", limits.max, f"at least pet.{phase}.{kind}.min, which is {limits.min:g}"
    most = phases.sum.count.max
    for limit, value in (("min", phases.sum2.count.min), ("max", phases.sum2.count.max)):
        if value > most >= phases.sum.count.min:
            yield f"pet.sum2.count.{limit}", value, f"at most pet.sum.count.max, which is {most}"
    models, least = settings.mask_config.max_model_count, settings.pet.update.count.min
    if least > models:
        yield "pet.update.count.min", least, f"at most {models}, the models that mask.model_type allows"
    yield from _broken_tls_rules(settings.api)
    try:
        settings.nats.to_nats_settings()
    except ConfigError as error:
        yield "nats.hosts", None, f"settings of the broker that fit together ({error})"


def _broken_tls_rules(api: ApiSettings) -> Iterator[tuple[str, Any, str]]:
    """Yield what is missing beside a TLS file. xaynet lets `tls_client_auth` stand alone; no server could start so."""
    if (api.tls_certificate is None) != (api.tls_key is None):
        name = "api.tls_key" if api.tls_key is None else "api.tls_certificate"
        yield name, None, RULES[name]
    elif api.tls_client_auth is not None and api.tls_certificate is None:
        yield "api.tls_client_auth", str(api.tls_client_auth), RULES["api.tls_client_auth"]


def _describe_all(errors: list[ErrorDetails], names: Mapping[str, Written]) -> list[str]:
    """Say what is wrong with each value, naming the keys as they were written; a value that sum2 takes from sum only once."""
    found: dict[str, tuple[Any, str]] = {}
    for details in errors:
        if details["type"] == "rules":
            found |= {name: (value, rule) for name, value, rule in details["ctx"]["violations"]}
            continue
        name = ".".join(str(part) for part in details["loc"])
        if details["type"] == "extra_forbidden":
            found[name] = details["input"], ""
            continue
        while name not in RULES and "." in name:
            name = name.rpartition(".")[0]
        found[name] = details["input"], RULES.get(name, "a section of settings")
    return [
        _line(name, value, rule, names)
        for name, (value, rule) in found.items()
        if name in names or name.replace("sum2", "sum") not in found.keys() - {name}
    ]


def _line(name: str, value: Any, rule: str, names: Mapping[str, Written]) -> str:
    written = names.get(name)
    key = name if written is None or written.key == name else f"{written.key} ({name})"
    got = _show(name, value)
    return f"{key}: expected {rule}, got {got}" if rule else f"{key}: no such setting, got {got}"


def _show(name: str, value: Any) -> str:
    """Return a value for an error. A misspelt name may be that of a secret: then its section decides."""
    section = name.split(".")[0]
    if name in SECRET or (name not in RULES and any(secret.startswith(f"{section}.") for secret in SECRET)):
        return "a value that is not shown"
    if value is None:
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[:_MAX_SHOWN_CHARACTERS]}..."


def _notices(settings: Settings, written: Mapping[str, Written]) -> list[str]:
    """Say what is accepted but will not happen."""
    notices = [f"{item.key}: accepted, but not used by this release" for name, item in written.items() if name in UNUSED]
    models, most = settings.mask_config.max_model_count, settings.pet.update.count.max
    if most > models and "pet.update.count.max" in written:
        notices.append(
            f"pet.update.count.max is {most}, but mask.model_type allows {models} models: updates beyond them are refused"
        )
    return notices
