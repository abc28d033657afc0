"""One request to the REST interface whose signature was right: its parameters and its body, read and checked.

Which path it is for, and what that path does, is not known here.

Source: docs/spec/federation.md 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.model_shape import MAX_WEIGHT
from pet.federation.formats.numbers import to_floats
from pet.federation.formats.users import NAME
from pet.federation.records import OwnChoices
from pet.federation.server.answers import refuse
from pet.federation.server.authentication import Caller
from pet.federation.server.parameters import flag, integer, invalid_key, required
from pet.federation.server.request_maps import read_map

#: From this version of the vendor's clients on, a list of strings is an object with `values`.
_LISTS_ARE_OBJECTS_FROM: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request whose signature was right.

    Attributes:
        parameters: of the path.
        query: decoded; of a repeated name the last value.
        source: whom failed joins are counted against.
    """

    caller: Caller
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    source: str

    @property
    def customer_id(self) -> str:
        """The user."""
        return self.caller.customer_id

    @property
    def project_id(self) -> str:
        """The project in the path."""
        return self.parameters["pid"]

    def entries(self) -> dict[str, str]:
        """Return the map of strings that the body is."""
        return read_map(self.caller.decrypt_body(self.body))

    def new_project_id(self) -> str:
        """Return the name that the query gives to a project that is to begin."""
        project_id = required(self.query, "pid")
        if not NAME.fullmatch(project_id):
            raise invalid_key("pid", "expected 1 to 64 letters, digits, '_', '.', '-'")
        return project_id

    def own_choices(self) -> OwnChoices:
        """Return what only this peer's user decides; it comes in the query, as an invitation may say anything in the map."""
        return OwnChoices(
            least_rows=self.number("leastRows", 0), accepts_contracts=flag(self.query, "acceptContracts", default=False)
        )

    def number(self, name: str, default: int | None = None) -> int:
        """Return a parameter of the query that is a number from 0 to 10^9."""
        return integer(self.query, name, default, most_digits=9)

    def strings(self, lines: list[str]) -> Any:
        """Return a list of strings in the form that this client reads."""
        version = self.headers.get("sym-version", "").partition(".")[0]
        is_old = version.isascii() and version.isdecimal() and len(version) < 4 and int(version) < _LISTS_ARE_OBJECTS_FROM
        return lines if is_old else {"values": lines}

    def string_list(self) -> list[str]:
        """Return the StringList that the body is: an array, or an object with an array as `values`."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        values = found.get("values") if isinstance(found, dict) else found
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise refuse(HTTPStatus.BAD_REQUEST, "Bad Request Body")
        return values

    def model(self) -> tuple[NDArray[np.float64], float]:
        """Return the model and its weight that the body is: JSON `{"weights": [numbers], "weight": number}`."""
        given = parse_json_object(self.body) or {}
        weight, values = given.get("weight", 1.0), given.get("weights")
        if not _is_number(weight) or not 0 < weight <= MAX_WEIGHT:
            raise invalid_key("weight", f"expected a number above 0 and at most {MAX_WEIGHT}")
        if not isinstance(values, list) or not all(map(_is_number, values)):
            raise FederationValueError("weights: expected a list of numbers, got something else")
        return to_floats(values, "weights"), float(weight)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
