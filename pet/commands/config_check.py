"""`pet config check`: what a settings file means and what is wrong with it, without starting anything.

What is right and wrong is decided in pet/coordinator/settings.py and surroundings.py; this file prints it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pet.commands.settings_report import load_or_exit, meaning, settings_table
from pet.coordinator.surroundings import find_file_faults, find_outer_faults


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A settings file (TOML), in the form of any version of xaynet.")],
    servers: Annotated[
        bool, typer.Option(help="Whether the servers that it names (Redis, S3, a broker) must answer from here.")
    ] = True,
) -> None:
    """Say what a settings file means and what is wrong with it. Variables of the environment count, as for a coordinator.

    Files that it names must be there, and servers must answer: both are only looked at.

    Example: pet config check configs/config.toml
    """
    loaded = load_or_exit(file, find_more=find_outer_faults if servers else find_file_faults)
    console = Console(highlight=False, markup=False)
    console.print(settings_table(loaded))
    for line in meaning(loaded.settings):
        console.print(line, soft_wrap=True)
    for warning in loaded.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    console.print(f"{file}: valid", style="green", soft_wrap=True)
