"""Records as JSON has them: strict about every value, and silent about what came."""

import copy
import importlib
import json
import pkgutil
from dataclasses import dataclass, field, is_dataclass
from enum import StrEnum
from typing import Annotated, get_args, get_origin, get_type_hints

import fork_server
import pytest
from test_federation_store import RECORDS

import pet.federation
from pet.errors import FederationValueError, RemoteProtocolError, StateError
from pet.federation.formats.json_form import Amount, AsGiven, AsList, Base64UrlText, Flag, JsonForm, Rules, Whole
from pet.federation.formats.record_codec import decode_record, encode_record
from pet.federation.peer.context import Counters
from pet.federation.records import SyncStatistics
from pet.secret import Secret


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    lines: tuple[str, ...] = ()
    counter: Whole = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    round_id: Whole
    colour: Colour = Colour.RED
    seconds: Amount = 0.0
    is_good: Flag = False
    key: Annotated[bytes, Base64UrlText(32, 0)] = b""
    secret: Secret | None = None
    inner: Annotated[Inner, AsList()] | None = None
    counts: dict[str, Whole] = field(default_factory=dict)


FORM = JsonForm(Outer, {"round_id": "round"})
FIELDS = {
    "round": 3,
    "colour": "red",
    "seconds": 0.5,
    "is_good": True,
    "key": "A" * 43,
    "secret": "hush",
    "inner": [["a", "b"], 2],
    "counts": {"x": 1},
}


def test_a_record_comes_back():
    found = FORM.read(FIELDS)
    assert found == Outer(
        round_id=3,
        seconds=0.5,
        is_good=True,
        key=bytes(32),
        secret=Secret("hush"),
        inner=Inner(lines=("a", "b"), counter=2),
        counts={"x": 1},
    )
    assert FORM.fields(found) == FIELDS
    assert json.loads(json.dumps(FORM.fields(found))) == FIELDS
    assert FORM.read({"round": 0, "of another version": None}) == Outer(round_id=0)
    assert FORM.read({"round": 0, "seconds": 2}).seconds == 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"round": True}, "round: expected a whole number, got bool"),
        ({"round": "5"}, "round: expected a whole number, got str"),
        ({"round": 5.0}, "round: expected a whole number, got float"),
        ({"round": None}, "round: expected a whole number, got NoneType"),
        ({"round": -1}, "round: expected greater than or equal to 0, got int"),
        ({"round": 2**63}, "round: expected less than 9223372036854775808, got int"),
        ({"colour": "blue"}, "colour: expected 'red', got str"),
        ({"seconds": True}, "seconds: expected a number, got bool"),
        ({"seconds": "1"}, "seconds: expected a number, got str"),
        ({"seconds": float("nan")}, "seconds: expected a finite number, got float"),
        ({"seconds": 10**400}, "seconds: expected a number, got int"),
        ({"is_good": 1}, "is_good: expected true or false, got int"),
        ({"is_good": "true"}, "is_good: expected true or false, got str"),
        ({"key": "AA"}, "key: expected 32 or 0 bytes, got 1"),
        ({"key": "AB"}, "key: expected canonical base64, got 2 characters that are not"),
        ({"key": None}, "key: expected base64url, got NoneType"),
        ({"secret": 5}, "secret: expected text, got int"),
        ({"inner": [["a"]]}, "inner: expected a list of 2, got list"),
        ({"inner": {"lines": [], "counter": 0}}, "inner: expected a list of 2, got dict"),
        ({"inner": ["ab", 0]}, "inner.lines: expected a list, got str"),
        ({"inner": [[5], 0]}, "inner.lines.0: expected text, got int"),
        ({"inner": [[], "0"]}, "inner.counter: expected a whole number, got str"),
        ({"counts": []}, "counts: expected an object, got list"),
        ({"counts": {"x": True}}, "counts.x: expected a whole number, got bool"),
    ],
    ids=repr,
)
def test_no_value_stands_for_another(change, problem):
    with pytest.raises(FederationValueError) as raised:
        FORM.read(FIELDS | change)
    assert str(raised.value) == problem
    assert raised.value.__context__ is None


@dataclass(frozen=True)
class Names:
    known: Annotated[frozenset[str], Rules(max_length=2)]


def test_sets_are_lists_with_a_largest_length():
    form = JsonForm(Names)
    assert form.read({"known": ["a", "b"]}) == Names(frozenset("ab"))
    for known, problem in (("ab", "a list, got str"), (["a", "b", "c"], "fewer items, got list"), ([5], "text, got int")):
        with pytest.raises(FederationValueError, match=f"expected {problem}"):
            form.read({"known": known})


def test_errors_say_what_is_missing_and_never_show_a_value():
    with pytest.raises(FederationValueError, match=r"^round: expected a value, got none$"):
        FORM.read({})
    for fields in (None, [], 5, "x"):
        with pytest.raises(FederationValueError, match=r"^expected an object, got \w+$"):
            FORM.read(fields)
    with pytest.raises(RemoteProtocolError, match=r"^outer: secret: expected text, got list$") as raised:
        FORM.receive(FIELDS | {"secret": ["hush"]}, "malformed_outer", "outer")
    assert raised.value.reason == "malformed_outer"
    with pytest.raises(FederationValueError) as long:
        FORM.read(FIELDS | {"counts": {"x" * 10_000: None}})
    assert len(str(long.value)) <= 256


def forms():
    """Yield every form that a module of the federations has."""
    for found in pkgutil.walk_packages(pet.federation.__path__, "pet.federation."):
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, JsonForm):
                yield value


def lax_types(hint, place, is_strict=False):
    """Yield where in a type a number or flag has no strict rule."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        if not any(isinstance(mark, JsonForm | Base64UrlText | AsGiven) for mark in marks):
            yield from lax_types(inner, place, any(getattr(mark, "_rules", {}).get("strict") for mark in marks))
    elif hint in (int, float, bool):
        if not is_strict:
            yield place
    elif is_dataclass(hint):
        for name, inner in get_type_hints(hint, include_extras=True).items():
            yield from lax_types(inner, f"{place}.{name}")
    else:
        for inner in get_args(hint):
            yield from lax_types(inner, place)


def test_every_number_and_flag_of_every_record_is_strict():
    @dataclass
    class Lax:
        number: int
        flags: tuple[bool, ...]
        strict: dict[str, Whole]

    assert list(lax_types(Lax, "Lax")) == ["Lax.number", "Lax.flags"]
    kinds = {form._kind for form in forms()}
    assert len(kinds) > 8
    assert [place for kind in kinds for place in lax_types(kind, str(kind))] == []


def others_of(value):
    """Return values that a careless reader would take for this one."""
    if isinstance(value, bool):
        return [int(value), str(value).lower(), None]
    if isinstance(value, int | float):
        return [str(value), bool(value), None, *([float(value)] if isinstance(value, int) else [])]
    return [["x"], 5, True] if isinstance(value, str) else []


def confused(record, path=()):
    """Yield a record with each number, flag and text replaced by each of those."""
    items = record.items() if isinstance(record, dict) else enumerate(record)
    for key, value in items:
        if isinstance(value, dict | list):
            for changed in confused(value, (*path, key)):
                copied = copy.copy(record)
                copied[key] = changed
                yield copied
        for other in others_of(value):
            copied = copy.copy(record)
            copied[key] = other
            yield copied


def test_stored_records_are_strict_in_every_field():
    """Seconds may be whole numbers, which JSON does not tell apart."""
    record = json.loads(encode_record(RECORDS["compatible"]()))
    del record["nats"]["request_timeout_seconds"]
    assert decode_record(json.dumps(record))
    assert len(list(confused(record))) > 100
    for other in confused(record):
        if type(other["version"]) is int:
            with pytest.raises(StateError):
                decode_record(json.dumps(other))


def test_stored_counters_are_strict_in_every_field():
    counters = Counters(
        applied={"a": 1},
        statistics=SyncStatistics(receive_contract_errors={"b": 1}),
        aggregate_rows={"a": 2},
        aggregate_contributors={"c": 1},
    )
    record = json.loads(counters.to_bytes())
    assert Counters.from_bytes(counters.to_bytes()) == counters
    for other in confused(record):
        with pytest.raises(StateError):
            Counters.from_bytes(json.dumps(other).encode())


def test_records_are_made_without_loading_what_reads_them():
    """A client makes some with every call, and each command of it would take a tenth of a second longer."""
    code = "import sys; from pet.federation import Client; from pet.federation.formats import record_codec; "
    code += "print({'pydantic', 'nats'} & sys.modules.keys())"
    done = fork_server.run(code, imports=fork_server.WITHOUT_EXTRAS)
    assert done.stdout.strip() == "set()"
