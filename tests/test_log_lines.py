"""Whatever a peer sends, a log has one line for each event, and a terminal shows what is written there and nothing else."""

from __future__ import annotations

import ast
import functools
import io
import json
import logging
import sys
import unicodedata

import httpx
import pytest
from federation_rest_server import federation_server
from sources import trees

from pet.coordinator.json_log import JsonFormatter
from pet.errors import PetError, RemoteProtocolError
from pet.log_lines import LineFormatter
from pet.shown import escape_controls

CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
FORMATTERS = {"plain": LineFormatter(), "JSON": JsonFormatter()}


@functools.cache
def hostile() -> str:
    """Everything that does something to a terminal or a reader: controls, half surrogates, marks of direction, separators."""
    return "".join(one for one in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(one) in CATEGORIES)


@pytest.fixture(params=FORMATTERS)
def logged(request):
    """A logger, and a function that returns what it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[request.param])
    logger = logging.Logger("pet.test")
    logger.addHandler(handler)
    return logger, stream.getvalue


def is_one_line(text: str) -> bool:
    return text.endswith("\n") and text[:-1].isprintable()


def test_a_line_holds_no_character_that_does_something(logged):
    logger, written = logged
    assert len(hostile()) > 2000
    logger.warning("from a peer: %s", hostile())
    assert is_one_line(written())


def test_texts_of_all_languages_stay(logged):
    logger, written = logged
    logger.warning("Krankenhaus Köln %s", "病院 больница مستشفى")
    line = written()
    assert "Krankenhaus Köln 病院 больница مستشفى" in (json.loads(line)["message"] if line.startswith("{") else line)


def test_a_traceback_forges_no_line(logged):
    logger, written = logged
    try:
        raise ValueError("bad\n2026-01-01 00:00:00,000 ERROR   pet: forged\x1b[2J")
    except ValueError:
        logger.exception("a message could not be handled")
    first, *others = written().splitlines()
    assert "could not be handled" in first
    assert all(line.startswith("    ") and line.isprintable() for line in others)


@pytest.mark.parametrize("error", [PetError, lambda text: RemoteProtocolError("reason", text)], ids=["any", "of a peer"])
def test_errors_hold_no_character_that_does_something_but_line_breaks(error):
    text = str(error(hostile()))
    assert text.replace("\n", "").replace("\t", "").isprintable()


def test_what_a_stranger_asks_a_federation_server_for_forges_no_line(logged):
    logger, written = logged
    target = logging.getLogger("pet.federation")
    target.addHandler(logger.handlers[0])
    before, target.level = target.level, logging.INFO
    try:
        with federation_server() as url:
            path = "/symetry/rest/c1/fedml/x%0a2026-01-01 ERROR pet: forged%1b[2J%e2%80%ae/info".replace(" ", "%20")
            assert httpx.get(url + path, headers={"Authorization": "Bearer x"}, trust_env=False).status_code == 401
    finally:
        target.removeHandler(logger.handlers[0])
        target.setLevel(before)
    lines = written().splitlines(keepends=True)
    assert any("forged" in line for line in lines)
    assert all(is_one_line(line) and not line.startswith("2026-01-01 ERROR") for line in lines)


def test_what_is_escaped_can_be_told():
    assert escape_controls("a\x1b[31m\r\n\x7f\x85\u202e\ud800b") == r"a\x1b[31m\r\n\x7f\x85\u202e\ud800b"
    assert escape_controls("a\tb\nc", keeps="\n") == "a\\tb\nc"


def test_every_program_of_pet_logs_in_such_lines():
    """The assumption: nobody but log_lines.py sets up handlers, and formatters are the two that are tested here."""
    found = set()
    for path, tree in trees().items():
        for node in ast.walk(tree):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in {"basicConfig", "StreamHandler", "dictConfig", "setFormatter"}:
                found.add((path.name, name))
    assert found == {
        ("log_lines.py", "basicConfig"),
        ("log_lines.py", "StreamHandler"),
        ("log_lines.py", "setFormatter"),
        ("coordinator.py", "setFormatter"),
    }
