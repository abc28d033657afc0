"""What the peers of a federation agree on in public: the features, their ranges, and the order of a statistics vector.

A schema says nothing about anybody's rows: its author chooses centres, scales and histogram edges from public
knowledge (or rounds them, as `Schema.propose` does). This file never sees a sum; what is added up is the business of
pet/federation/statistics/statistics.py.

Source: docs/spec/federation.md 1.9.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from pet.crypto import hash_sha256
from pet.errors import FederationValueError
from pet.federation.formats.numbers import to_floats
from pet.federation.statistics.feature import Feature, Kind, proposed_feature
from pet.federation.statistics.layout import LAYOUT, LAYOUT_WITH_MISSING, StatisticsLayout
from pet.numbers import checked_number

#: Of sums of fourth powers, one row takes up to 10^4: more would leave few digits to the other rows.
MAX_Z: Final = 10.0
#: Beyond about 2000 the cross products alone are 16 MB (spec 1.1).
MAX_FEATURES: Final = 4096
#: A round takes 2^43 rows of all peers together, and so this many of each of eight.
MAX_ROWS: Final = 10**12
DEFAULT_MAX_ROWS: Final = 10**7
MAX_SCHEMA_BYTES: Final = 1 << 22


@dataclass(frozen=True, eq=True)
class Schema:
    """The features of a federation, in canonical order, and the bounds of their values.

    Attributes:
        features: sorted by name, whatever order they were given in.
        z_max: largest absolute value of (x - centre) / scale, above 0 and at most 10.
        max_rows: no peer has more rows; public. Totals of more are no result of a round. How exact sums are, it has no part in.
        has_missing: whether values may be missing (NaN); each pair of features has sums over its own rows then.

    Raises:
        FederationValueError: names the field that breaks a rule.
    """

    features: tuple[Feature, ...]
    z_max: float = MAX_Z
    max_rows: int = DEFAULT_MAX_ROWS
    has_missing: bool = False

    def __post_init__(self) -> None:
        features = tuple(sorted(self.features, key=lambda feature: feature.name))
        object.__setattr__(self, "features", features)
        if not 1 <= len(features) <= MAX_FEATURES:
            raise FederationValueError(f"schema: expected 1 to {MAX_FEATURES} features, got {len(features)}")
        if len({feature.name for feature in features}) != len(features):
            raise FederationValueError("schema: expected features with different names, got one name twice")
        object.__setattr__(self, "z_max", checked_number(self.z_max, "z_max", above=0, most=MAX_Z, error=FederationValueError))
        row_bound = checked_number(self.max_rows, "max_rows", least=1, most=MAX_ROWS, error=FederationValueError)
        if not isinstance(row_bound, int):
            raise FederationValueError(f"max_rows: expected a whole number, got {row_bound}")
        object.__setattr__(self, "max_rows", row_bound)
        for feature in features:
            low, high = self.range_of(feature)
            if feature.edges and not low < feature.edges[0] <= feature.edges[-1] < high:
                raise FederationValueError(f"feature {feature.name}: expected histogram edges between {low:g} and {high:g}")

    @classmethod
    def propose(cls, names: Sequence[str], values: NDArray[Any], *, has_missing: bool = False, bins: int = 0) -> Self:
        """Propose a schema from example rows; two columns of 0 and 1 apart, everything is continuous.

        Centre and scale are powers of two or multiples of them, so that they tell little of the rows; values may lie four
        times as far from the centre as in the examples. A column that hardly varies gets a wider range, and a constant one
        up to four times its value (at least 4) around it, as other peers' values are hardly the same. One of zeros or ones
        alone is binary.

        Args:
            names: of the columns.
            values: rows x columns.
            has_missing: whether values may be missing.
            bins: of each histogram; 0 or 1 for none.
        """
        columns = to_floats(values, "rows").T
        features = [proposed_feature(name, column, bins) for name, column in zip(names, columns, strict=True)]
        return cls(tuple(features), has_missing=has_missing)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in canonical order."""
        return tuple(feature.name for feature in self.features)

    def index(self, name: str) -> int:
        """Return the place of a feature.

        Raises:
            FederationValueError: there is none of that name.
        """
        try:
            return self._places[name]
        except KeyError:
            raise FederationValueError(f"feature: expected one of the schema's {len(self)}, got {name!r}") from None

    def range_of(self, feature: Feature) -> tuple[float, float]:
        """Return the least and the greatest value that a feature may have."""
        if feature.kind is Kind.BINARY:
            return 0.0, 1.0
        return feature.centre - self.z_max * feature.scale, feature.centre + self.z_max * feature.scale

    @property
    def least_rows(self) -> int:
        """How many rows statistics need to leave a peer: attributes + 5 (spec 1.7)."""
        return len(self) + 5

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @functools.cached_property
    def continuous(self) -> NDArray[np.intp]:
        """Places of the continuous features."""
        return np.array([i for i, feature in enumerate(self.features) if feature.kind is Kind.CONTINUOUS], dtype=np.intp)

    @functools.cached_property
    def binary(self) -> NDArray[np.intp]:
        """Places of the binary features."""
        return np.array([i for i, feature in enumerate(self.features) if feature.kind is Kind.BINARY], dtype=np.intp)

    @functools.cached_property
    def centres(self) -> NDArray[np.float64]:
        """Centre of each feature."""
        return np.array([feature.centre for feature in self.features])

    @functools.cached_property
    def scales(self) -> NDArray[np.float64]:
        """Scale of each feature."""
        return np.array([feature.scale for feature in self.features])

    @functools.cached_property
    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The i and the j of each pair, in the order of the layout."""
        first, second = np.triu_indices(len(self), 1)
        return first, second

    def pair_index(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where pairs are among `pairs`, for places of different features in either order."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        return np.asarray(low * len(self) - low * (low + 1) // 2 + high - low - 1)

    @functools.cached_property
    def conditional_pairs(self) -> NDArray[np.intp]:
        """Which pair each conditional square is of."""
        rows, columns = np.meshgrid(self.continuous, self.binary, indexing="ij")
        return self.pair_index(rows.ravel(), columns.ravel())

    @functools.cached_property
    def layout(self) -> StatisticsLayout:
        """Where each block of a statistics vector is."""
        bins = [feature.bin_count for feature in self.features]
        return StatisticsLayout.of(len(self), len(self.continuous), bins=bins, has_missing=self.has_missing)

    @functools.cached_property
    def integral(self) -> NDArray[np.bool_]:
        """Which numbers of a vector are counts, and so whole numbers: those that only binary features make too."""
        layout = self.layout
        mask = np.zeros(layout.length, dtype=np.bool_)
        is_binary = np.zeros(len(self), dtype=np.bool_)
        is_binary[self.binary] = True
        mask[layout.counts] = mask[layout.pair_counts] = mask[layout.pairs_left_out] = True
        mask[layout.sums] = mask[layout.squares] = is_binary
        first, second = self.pairs
        mask[layout.products] = is_binary[first] & is_binary[second]
        if self.has_missing:
            mask[layout.pair_first_sums] = mask[layout.pair_first_squares] = is_binary[first]
            mask[layout.pair_second_sums] = mask[layout.pair_second_squares] = is_binary[second]
        for histogram in layout.histograms:
            mask[histogram] = True
        return mask

    @functools.cached_property
    def bounds(self) -> NDArray[np.float64]:
        """The largest absolute value that one row can add to each number of a vector."""
        layout, z_max = self.layout, self.z_max
        of_feature = np.array([1.0 if feature.kind is Kind.BINARY else z_max for feature in self.features])
        bounds = np.ones(layout.length)
        bounds[layout.sums], bounds[layout.squares] = of_feature, of_feature**2
        bounds[layout.cubes], bounds[layout.fourths] = z_max**3, z_max**4
        first, second = of_feature[self.pairs[0]], of_feature[self.pairs[1]]
        bounds[layout.products] = first * second
        if self.has_missing:
            bounds[layout.pair_first_sums], bounds[layout.pair_second_sums] = first, second
            bounds[layout.pair_first_squares], bounds[layout.pair_second_squares] = first**2, second**2
        bounds[layout.conditional_squares] = z_max**2
        return bounds

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted keys, no spaces, the features in canonical order."""
        record = {
            "features": [feature.to_json() for feature in self.features],
            "has_missing": self.has_missing,
            "max_rows": self.max_rows,
            "z_max": float(self.z_max),
        }
        if self.has_missing:  # without, nothing changed, and a schema keeps its digest
            record["layout"] = LAYOUT_WITH_MISSING
        return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes, *, is_agreed: bool = False) -> Self:
        """Read a schema; strict about keys and types, lenient about their order.

        Args:
            text: what `to_json` returned, or what a person wrote.
            is_agreed: whether peers have agreed on it, so that it says which layout their statistics have: one with missing
                values and without a layout is of the first, which lacks the sums of pairs. A person need not know of layouts.

        Raises:
            FederationValueError: not a schema, longer than 4 MiB, or of a layout that this version does not know.
        """
        if len(text) > MAX_SCHEMA_BYTES:
            raise FederationValueError(f"schema: expected at most {MAX_SCHEMA_BYTES} bytes, got {len(text)}")
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            raise FederationValueError("schema: expected JSON, got something else") from None
        known = {"features", "has_missing", "layout", "max_rows", "z_max"}
        if not isinstance(record, dict) or not {"features"} <= record.keys() <= known:
            raise FederationValueError(f"schema: expected an object with at most {sorted(known)}, got something else")
        features, has_missing, z_max = record["features"], record.get("has_missing", False), record.get("z_max", MAX_Z)
        if not isinstance(features, list) or not isinstance(has_missing, bool) or not isinstance(z_max, int | float):
            raise FederationValueError("schema: expected a list of features, a boolean has_missing and a number z_max")
        expected = LAYOUT_WITH_MISSING if has_missing else LAYOUT
        layout = record.get("layout", LAYOUT if is_agreed else expected)
        if type(layout) is not int or layout != expected:
            raise FederationValueError(
                f"schema: expected statistics of layout {expected}, got layout {layout!r}, of another version of pet; "
                "begin the federation anew with one version at all peers, and learn the rows again"
            )
        read = _read_features(features)
        return cls(read, z_max=z_max, max_rows=record.get("max_rows", DEFAULT_MAX_ROWS), has_missing=has_missing)

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical JSON text, 32 bytes: the name of the schema."""
        return hash_sha256(self.to_json().encode())


def _read_features(records: Iterable[object]) -> tuple[Feature, ...]:
    return tuple(Feature.from_json(record) for record in records)
