"""From a coordinator's settings to those of rounds of pet/1, and what contradicts them.

Source: docs/spec/profile.md 15.4.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pet.coordinator.round_sections import Window
from pet.coordinator.setting_sections import SettingsTree
from pet.crypto import SIGNATURE_BYTES
from pet.errors import ConfigError, RemoteProtocolError, SettingsError
from pet.field_config import FieldConfig
from pet.files import shown_fault
from pet.mask_choices import Derivation, FieldValues
from pet.pet1.enrolment import NAME, Enrolment, split_signed
from pet.pet1.hashes import magic
from pet.pet1.round_record import EVERYBODY
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes

_BESIDE: Final = 'beside pet.profile.name = "pet/1"'
#: Longest time that a record can say, in seconds.
_MAX_SECONDS: Final = 2**32 - 1


def read_served_enrolment(path: Path) -> bytes:
    """Read a file of `pet enrol`: as people write it, or signed.

    Returns:
        The enrolment's bytes, and the signature or zeros behind them.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(shown_fault(error, path, "an enrolment")) from None
    if not data.startswith(magic(NAME)):
        return Enrolment.from_toml(path).to_bytes() + bytes(SIGNATURE_BYTES)
    try:
        split_signed(data)
    except RemoteProtocolError as error:
        raise SettingsError(f"{path}: {error}") from None
    return data


def to_pet1_settings(settings: SettingsTree) -> Pet1Settings:
    """Return what the protocol needs to know; the settings name an enrolment.

    Raises:
        ConfigError: the enrolment cannot be used, or the protocol refuses the combination.
    """
    phases, profile = settings.pet, settings.pet.profile
    if profile.enrolment is None:
        raise ConfigError(f"pet.profile.enrolment: expected an enrolment {_BESIDE}, got nothing")
    served = read_served_enrolment(profile.enrolment)
    return Pet1Settings(
        config=FieldConfig(
            Derivation(profile.derivation.removeprefix(FieldConfig.PREFIX)),
            FieldValues(profile.data_type),
            profile.max_updates,
            profile.bound,
        ),
        model_length=settings.model.length,
        served_enrolment=served,
        min_updates=split_signed(served)[0].min_updates,
        min_count=phases.update.count.min,
        max_count=phases.update.count.max,
        update_share=max(1, round(profile.update_share * EVERYBODY)),
        sum=_times(phases.sum.time),
        update=_times(phases.update.time),
        check=_times(phases.check.time),
        sum2=_times(phases.sum2.time),
        committee_spare=phases.committee.spare,
        answer_spare=phases.sum2.spare,
        pieces_in_flight=profile.pieces_in_flight,
        evidence_rounds=profile.evidence_rounds,
    )


def find_pet1_contradictions(settings: SettingsTree) -> Iterator[tuple[str, str]]:
    """Yield the full name and a sentence for each setting that contradicts the profile, without looking at files."""
    phases, profile = settings.pet, settings.pet.profile
    if not phases.is_pet1:
        if profile.enrolment is not None:
            yield "pet.profile.enrolment", f"expected it {_BESIDE}, got it beside xaynet's profile, where anybody may take part"
        return
    if profile.enrolment is None:
        yield "pet.profile.enrolment", f"expected an enrolment {_BESIDE}, got nothing; make one with pet enrol new"
    if profile.data_type == "int" and profile.bound != 1:
        yield "pet.profile.bound", f"expected 1 with integers, got {profile.bound:g}"
    if phases.update.count.min > profile.max_updates:
        least = phases.update.count.min
        yield "pet.update.count.min", f"expected at most pet.profile.max_updates, which is {profile.max_updates}, got {least:g}"
    windows: dict[str, Window] = {
        "sum": phases.sum.time,
        "update": phases.update.time,
        "check": phases.check.time,
        "sum2": phases.sum2.time,
    }
    for name, times in windows.items():
        if times.max != int(times.max) or times.max > _MAX_SECONDS:
            yield f"pet.{name}.time.max", f"expected whole seconds below 2^32 {_BESIDE}, got {times.max:g}"
    if settings.service.allowed_participants is not None:
        yield "service.allowed_participants", f"expected none {_BESIDE}, got one: the enrolment says who may take part"


def find_enrolment_faults(settings: SettingsTree) -> Iterator[tuple[str, str]]:
    """Yield the full name and a sentence for each setting that its enrolment contradicts, or for the file itself."""
    phases, profile = settings.pet, settings.pet.profile
    if not phases.is_pet1 or profile.enrolment is None:
        return
    try:
        enrolment, _ = split_signed(read_served_enrolment(profile.enrolment))
    except SettingsError as error:
        yield "pet.profile.enrolment", str(error)
        return
    if 0 < enrolment.expires < time.time():
        yield "pet.profile.enrolment", "expected an enrolment that is in force, got one that has expired; sign a new version"
    if profile.max_updates < enrolment.min_updates:
        least = f"{enrolment.min_updates}, the least that the enrolment allows in a sum"
        yield "pet.profile.max_updates", f"expected at least {least}, got {profile.max_updates}"
    if phases.update.count.min > len(enrolment.participants):
        most = f"{len(enrolment.participants)}, the participants that the enrolment lists"
        yield "pet.update.count.min", f"expected at most {most}, got {phases.update.count.min:g}"


def _times(window: Window) -> PhaseTimes:
    return PhaseTimes(min_seconds=window.min, max_seconds=int(window.max))
