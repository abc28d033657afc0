"""What a request to learn or forget says: which piece of which table, and in which form the rows are.

Parameters and bodies become a `Piece` and a table here; nothing is learned.

Source: docs/spec/federation.md 9.2, 9.3.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from email.message import Message
from typing import Any

from pet.errors import FederationValueError
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.learning_records import Change, Piece
from pet.federation.server.parameters import flag, integer, invalid_key
from pet.federation.statistics.row_pieces import CONTENT_TYPE, decode_piece


def piece_of(query: Mapping[str, str], change: Change) -> Piece:
    """Return which piece a request is: the only one of a table, unless it says otherwise.

    Raises:
        FederationValueError: names the parameter that breaks a rule.
    """
    if "request" not in query and "piece" in query:
        raise invalid_key("request", "it is missing beside piece")
    return Piece(
        request=query.get("request") or secrets.token_hex(16),
        change=change,
        number=integer(query, "piece", 0, most_digits=7),
        is_last=flag(query, "last", default=True),
        again=flag(query, "again", default=False),
    )


def table_of(headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Any:
    """Return the table that a body is: CSV, pieces of doubles, or JSON columns.

    Raises:
        FederationValueError: it is neither, or is malformed.
    """
    message = Message()
    message["content-type"] = headers.get("content-type", "application/json")
    kind = message.get_content_type()
    if kind == "text/csv":
        return CsvTable(
            body,
            encoding=message.get_content_charset("utf-8"),
            separator={"tab": "\t"}.get(query.get("separator", ""), query.get("separator")),
            decimal=query.get("decimal", "."),
        )
    if kind == CONTENT_TYPE:
        return decode_piece(body)
    columns = (parse_json_object(body) or {}).get("columns")
    if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
        raise FederationValueError("Bad Request Body")
    return columns
