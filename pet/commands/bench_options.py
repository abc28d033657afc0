"""What the options of `pet bench` mean, checked before anything is measured or allocated."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

import typer

from pet import kernels
from pet.commands.bench_fields import most_weights
from pet.commands.bench_memory import usable_bytes
from pet.errors import ConfigError, PetError
from pet.mask_config import MaskConfig

#: More sizes than this are a mistake: each takes seconds.
MAX_SIZES: Final = 100
#: A comma between configs: those of pet-1 have commas of their own, before the words of their second half.
_CONFIG_END: Final = re.compile(r",(?!\s*(?:f32|f64|int|bound=[^,]*|models=[^,]*)\s*(?:,|$))", re.IGNORECASE)
#: What the comparison with the peers takes per weight: measured 200 to 500 bytes here, and 150 in the coordinator beside it.
PEER_BYTES_PER_WEIGHT: Final = 1000


def parse_sizes(text: str, configs: Sequence[MaskConfig]) -> list[int]:
    """Return the sizes of --sizes.

    Raises:
        typer.BadParameter: they are no whole numbers, or a workload of one of the configs would not fit the memory.
    """
    parts = text.split(",")
    if len(parts) > MAX_SIZES:
        raise typer.BadParameter(f"expected at most {MAX_SIZES} sizes, got {len(parts)}", param_hint="--sizes")
    usable = usable_bytes()
    config, most = min(((config, most_weights(config, usable)) for config in configs), key=lambda pair: pair[1])
    return [_parse_size(part, "--sizes", most, f" of {config}", usable) for part in parts]


def parse_peer_size(text: str) -> int:
    """Return the size of --peer-size.

    Raises:
        typer.BadParameter: it is no whole number, or the comparison would not fit the memory.
    """
    usable = usable_bytes()
    return _parse_size(text, "--peer-size", usable // PEER_BYTES_PER_WEIGHT, " beside the peers", usable)


def _parse_size(text: str, option: str, most: int, what: str, usable: int) -> int:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number < 1 or number != number.to_integral_value():
        raise typer.BadParameter(f"expected a whole number of weights as 10000 or 1e4, got {text!r}", param_hint=option)
    if number > most:
        memory = f"{usable / 1e9:.3g} GB can be used"
        expected = f"expected at most {most:,} weights{what} for this machine's memory ({memory})"
        raise typer.BadParameter(f"{expected}, got {text.strip()}", param_hint=option)
    return int(number)


def parse_threads(text: str) -> int:
    """Return the number of --threads.

    Raises:
        typer.BadParameter: it is no whole number, or more than the probe of the ceilings can start.
    """
    return _parse_count(text, "threads", 1, 256)


def parse_peer_seeds(text: str) -> int:
    """Return the number of --peer-seeds.

    Raises:
        typer.BadParameter: it is no whole number, fewer than a round needs updates, or more than a round should take here.
    """
    return _parse_count(text, "seeds", 3, 1000)


def _parse_count(text: str, what: str, least: int, most: int) -> int:
    number = str(text).strip()
    if not (number.isascii() and number.isdecimal() and len(number) < 10 and least <= int(number) <= most):
        raise typer.BadParameter(f"expected {least} to {most} {what}, got {number!r}")
    return int(number)


def parse_configs(text: str) -> list[MaskConfig]:
    """Return the mask configs of --configs.

    Raises:
        typer.BadParameter: there is no such config.
    """
    try:
        return [MaskConfig.parse(part.strip()) for part in _CONFIG_END.split(text)]
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--configs") from None


def parse_backends(text: str) -> list[str]:
    """Return the back-ends of --backends; the one in use if none is named.

    Raises:
        typer.BadParameter: this machine cannot run one of them.
    """
    names = [name.strip() for name in text.split(",")] if text else [kernels.active_backend()]
    available = kernels.available_backends()
    for name in names:
        if name not in available:
            expected = f"expected some of {', '.join(available)}, which this machine can run"
            raise typer.BadParameter(f"{expected}, got {name!r}", param_hint="--backends")
    return names


def require_folders(*files: Path | None) -> None:
    """Find out before measuring, which takes minutes, that a file could not be written after it.

    Raises:
        PetError: the folder of a file does not exist.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise PetError(f"{file}: expected a folder that exists, got {file.parent}")


def require_plot_format(file: Path | None) -> None:
    """Refuse a plot whose format is unknown before measuring.

    Raises:
        typer.BadParameter: the suffix names no format that can be drawn.
        ModuleNotFoundError: matplotlib, which draws it, is not installed; not known only after a minute of measuring.
    """
    if file is not None and file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"expected a file that ends in .png, .svg or .pdf, got {str(file)!r}", param_hint="--plot")
    if file is not None:
        importlib.import_module("matplotlib")
