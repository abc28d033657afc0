"""One attribute of the rows of a federation: its kind, the range of its values, the edges of its histogram.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.formats.numbers import to_floats
from pet.numbers import checked_number

MAX_EDGES: Final = 1024
MAX_NAME_LENGTH: Final = 128
#: A column of examples that varies by less than this many units in the last place is a constant that was computed.
_CONSTANT_ULPS: Final = 64
#: A spread below this share of the values is widened, as other peers' values may be elsewhere, ...
_NARROW_SHARE: Final = 2.0**-10
#: ... but by no more than this factor, as masks cost digits of what is far smaller than the scale.
_MAX_WIDENING: Final = 2.0**16


class Kind(enum.Enum):
    """What the values of a feature are."""

    CONTINUOUS = "continuous"  # numbers within centre +- z_max * scale
    BINARY = "binary"  # 0 and 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One attribute of the rows.

    Attributes:
        name: unique in its schema; 1 to 128 printable characters without quotation marks.
        kind: what its values are.
        centre: what is taken off a value; 0 for a binary feature.
        scale: what the difference is divided by, above 0; 1 for a binary feature.
        edges: inner edges of the histogram, rising; k edges make k + 1 bins, the outer ones end at the feature's range. None
            without a histogram. A value on an edge belongs to the bin above.

    Raises:
        FederationValueError: names the field that breaks a rule.
    """

    name: str
    kind: Kind = Kind.CONTINUOUS
    centre: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        is_name = isinstance(self.name, str) and 1 <= len(self.name) <= MAX_NAME_LENGTH
        if not is_name or not self.name.isprintable() or '"' in self.name or self.name != self.name.strip():
            raise FederationValueError(f"feature name: expected 1 to {MAX_NAME_LENGTH} printable characters, got {self.name!r}")
        centre = checked_number(self.centre, f"feature {self.name}: centre", error=FederationValueError)
        scale = checked_number(self.scale, f"feature {self.name}: scale", above=0, error=FederationValueError)
        edges = to_floats(self.edges, f"feature {self.name}: edges").tolist()
        for name, value in (("centre", centre), ("scale", scale), ("edges", tuple(edges))):
            object.__setattr__(self, name, value)
        if self.kind is Kind.BINARY and ((self.centre, self.scale) != (0, 1) or self.edges):
            raise FederationValueError(f"feature {self.name}: expected a binary feature with centre 0, scale 1 and no edges")
        rising = all(math.isfinite(edge) for edge in self.edges) and all(
            low < high for low, high in zip(self.edges, self.edges[1:], strict=False)
        )
        if len(self.edges) > MAX_EDGES or not rising:
            raise FederationValueError(f"feature {self.name}: expected at most {MAX_EDGES} rising, finite histogram edges")

    @property
    def bin_count(self) -> int:
        """How many bins the histogram has; 0 without one."""
        return len(self.edges) + 1 if self.edges else 0

    def to_json(self) -> dict[str, Any]:
        """Return the feature as JSON has it."""
        record: dict[str, Any] = {"name": self.name, "kind": self.kind.value}
        if self.kind is Kind.CONTINUOUS:
            record |= {"centre": float(self.centre), "scale": float(self.scale), "edges": [float(edge) for edge in self.edges]}
        return record

    @classmethod
    def from_json(cls, record: object) -> Self:
        """Read a feature; unknown keys are refused.

        Raises:
            FederationValueError: not a feature.
        """
        known = {"name", "kind", "centre", "scale", "edges"}
        if not isinstance(record, Mapping) or not {"name", "kind"} <= record.keys() <= known:
            raise FederationValueError(
                f"feature: expected an object with name, kind and at most {sorted(known)}, got something else"
            )
        edges = record.get("edges", [])
        numbers = [record.get("centre", 0.0), record.get("scale", 1.0), *(edges if isinstance(edges, list) else [None])]
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            raise FederationValueError("feature: expected numbers as centre, scale and edges")
        try:
            kind = Kind(record["kind"])
            centre, scale, *rest = map(float, numbers)
        except (ValueError, OverflowError):
            raise FederationValueError(
                f"feature: expected a kind of {[kind.value for kind in Kind]} and finite numbers"
            ) from None
        return cls(name=record["name"], kind=kind, centre=centre, scale=scale, edges=tuple(rest))


def proposed_feature(name: str, column: NDArray[np.float64], bins: int) -> Feature:
    """Propose one feature from example values; bins of a histogram, 0 or 1 for none (`Schema.propose` says how).

    Raises:
        FederationValueError: there is no value.
    """
    seen = column[np.isfinite(column)]
    if not len(seen):
        raise FederationValueError(f"feature {name}: expected at least one value to propose a range from")
    if np.isin(seen, (0, 1)).all():
        return Feature(name=name, kind=Kind.BINARY)
    low, high = float(seen.min()), float(seen.max())
    size = max(abs(low), abs(high))
    spread = high / 2 - low / 2  # halves first: the difference of two doubles may be none
    is_constant = spread <= _CONSTANT_ULPS * math.ulp(size)
    wide = max(size, 1.0) if is_constant else max(spread, min(size * _NARROW_SHARE, spread * _MAX_WIDENING))
    scale, step = _power_of_two(wide), _power_of_two(wide if is_constant else spread)
    centre = round((high / 2 + low / 2) / step) * step
    inner = np.linspace(-3 * scale, 3 * scale, bins + 1)[1:-1] + centre if bins > 1 else ()
    return Feature(name=name, centre=centre, scale=scale, edges=tuple(float(edge) for edge in inner))


def _power_of_two(spread: float) -> float:
    """Return the least power of two of which 2.5 hold a spread; the least that can be inverted for less."""
    return float(2.0 ** max(math.ceil(math.log2(spread) - math.log2(2.5)), -1000))
