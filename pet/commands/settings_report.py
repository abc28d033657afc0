"""What a coordinator's settings amount to, as tables and lines for a terminal; shared by the commands that show them.

Values of secrets are not shown.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pet.coordinator.pet1_engine import Pet1Engine
from pet.coordinator.pet1_settings import to_pet1_settings
from pet.coordinator.round_engine import AnyEngine
from pet.coordinator.setting_faults import Fault
from pet.coordinator.setting_names import SECRET, SETTINGS, SHIPPED, UNUSED, setting_values
from pet.coordinator.setting_sections import SettingsTree
from pet.coordinator.settings import LoadedSettings, Settings, load_settings_with_origins
from pet.coordinator.surroundings import find_outer_faults
from pet.errors import SettingsError
from pet.urls import without_credentials

_MESSAGE_FIXED_BYTES: Final = 48 + 136 + 128 + 12 + 4
_SEEDS_ENTRY_BYTES: Final = 112


def load_or_exit(
    path: Path | None,
    *,
    defaults: Mapping[str, Any] = SHIPPED,
    find_more: Callable[[SettingsTree], Mapping[str, Fault]] = find_outer_faults,
) -> LoadedSettings:
    """Load settings from a file, if any, and this process' environment; what is wrong is printed, a line each.

    Args:
        path: the settings file.
        defaults: as for `load_settings_with_origins`.
        find_more: as there.

    Raises:
        typer.Exit: with status 1, after the errors.
    """
    try:
        return load_settings_with_origins(path, os.environ, defaults=defaults, find_more=find_more)
    except SettingsError as error:
        faults = str(error).splitlines()
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for fault in faults:
        console.print(f"error: {fault}", style="red")
    raise typer.Exit(1)


def settings_table(loaded: LoadedSettings) -> Table:
    """Return every setting that has a value, with where the value comes from."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for name, value in setting_values(loaded.settings):
        if name in loaded.origins or (value is not None and name not in UNUSED):
            # The name that the file has is worth telling only if it is another one.
            origin = loaded.origins.get(name, "default").removeprefix(f"{name} in ")
            table.add_row(name, _show(name, value), origin)
    return table


def meaning(settings: Settings) -> list[str]:
    """Say in sentences what follows from the settings."""
    if settings.pet.is_pet1:
        return _meaning_of_pet1(settings)
    pair, phases = settings.mask_config, settings.pet
    vect, length = pair.vect, settings.model.length
    update_bytes = _MESSAGE_FIXED_BYTES + length * vect.element_bytes + pair.unit.element_bytes
    sum_share, update_share = phases.sum.prob, (1 - phases.sum.prob) * phases.update.prob
    round_seconds = phases.sum.time.min + phases.update.time.min + phases.sum2.time.min
    return [
        f"Mask config {vect}: {vect.element_bytes} bytes per weight, at most {pair.max_model_count} models in a round.",
        f"An update of {length} weights is a request of {update_bytes:,} bytes and {_SEEDS_ENTRY_BYTES} per sum participant.",
        f"Of all participants about {sum_share:.1%} sum, {update_share:.1%} update, {1 - sum_share - update_share:.1%} rest.",
        f"A round takes at least {round_seconds:g} seconds, and needs at least these messages: sum {phases.sum.count.min},"
        f" update {phases.update.count.min}, sum2 {phases.sum2.count.min}.",
    ]


def _meaning_of_pet1(settings: Settings) -> list[str]:
    rounds, length = to_pet1_settings(settings), settings.model.length
    enrolment, config = rounds.enrolment, rounds.config
    vector_bytes = (length + 1) * config.element_bytes
    least = max(rounds.min_count, enrolment.min_updates)
    return [
        f"Rounds are of profile pet/1, masked with {config}: {config.element_bytes} bytes per weight.",
        f"Enrolment of version {enrolment.version}, digest {enrolment.digest.hex()}: {enrolment.describe()}",
        f"An update of {length} weights is a vector of {vector_bytes:,} bytes, and a sealed part before it."
        f" Leaves take at most {len(enrolment.participants)} such vectors on the disk.",
        f"A round needs at least {least} updates, and the answers of {enrolment.plan.threshold} members of each group.",
    ]


def restored_lines(engine: AnyEngine) -> list[str]:
    """Say what a coordinator that starts goes on with."""
    status = engine.status()
    if not engine.was_restored:
        first = "from the time in seconds on" if isinstance(engine, Pet1Engine) else "from 1"
        return [f"Nothing is stored: rounds are counted {first}."]
    left = status["seconds_left"]
    lines = [
        f"Going on with round {status['round']} in phase {status['phase']}: {status['accepted']} messages accepted"
        + ("." if left is None else f", {left:.1f} seconds left.")
    ]
    if status["waiting"] is not None and status["waiting"]["missing"]:
        lines.append(f"It is {status['waiting']['text']}. {status['waiting']['advice']}")
    if engine.keeps_earlier_settings:
        lines.append("The settings of rounds have changed: this round keeps its own, the next one has the new ones.")
    return lines


def defaults_without_a_file(loaded: LoadedSettings) -> list[str]:
    """Say which defaults differ because there is no settings file."""
    chosen: dict[str, str] = {}
    for name, value in setting_values(loaded.settings):
        origin, followed = loaded.origins.get(name, ""), SETTINGS[name].follows
        if origin.startswith("default without a settings file"):
            chosen[name] = f"{name} {_show(name, value)} (with one: {SHIPPED[name]})"
        elif followed in chosen and origin == f"as {followed}":
            chosen[name] = f"{name} {_show(name, value)}"
    return [f"No settings file (-c), so the defaults are for trying out: {', '.join(chosen.values())}."] if chosen else []


def _show(name: str, value: Any) -> str:
    if name in SECRET:
        return "(not shown)"
    if isinstance(value, enum.Enum):
        return str(value.value).capitalize()
    return f"{value:g}" if isinstance(value, float) else without_credentials(str(value))
