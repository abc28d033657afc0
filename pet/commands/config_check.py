"""`pet config check`: what a settings file means and what is wrong with it, without starting anything.

What is right and wrong is decided in pet/coordinator/settings.py; this file prints it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pet.commands.settings_report import meaning, settings_table, unreadable_files
from pet.coordinator.settings import load_settings_with_origins
from pet.errors import SettingsError


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A settings file (TOML), in the form of any version of xaynet.")],
) -> None:
    """Say what a settings file means and what is wrong with it. Variables of the environment count, as for a coordinator.

    Example: pet config check configs/config.toml
    """
    console, errors = (
        Console(highlight=False, markup=False),
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True),
    )
    try:
        loaded = load_settings_with_origins(file, os.environ)
    except SettingsError as error:
        for line in str(error).splitlines():
            errors.print(f"error: {line}", style="red")
        raise typer.Exit(1) from None
    console.print(settings_table(loaded))
    for line in meaning(loaded.settings):
        console.print(line, soft_wrap=True)
    for warning in loaded.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    unreadable = unreadable_files(loaded.settings)
    for line in unreadable:
        errors.print(f"error: {line}", style="red")
    if unreadable:
        raise typer.Exit(1)
    console.print(f"{file}: valid", style="green", soft_wrap=True)
