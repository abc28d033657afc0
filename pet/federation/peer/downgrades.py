"""Terms that protect a peer less than it was promised are refused: by the invitation at first, by its terms from then on.

Source: docs/spec/federation.md 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from pet.errors import DowngradeError, FederationValueError
from pet.federation.records import FederationTerms, ProjectKind
from pet.federation.statistics.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedProtection:
    """What the admin says now of how a peer is protected.

    Attributes:
        encrypts: whether messages are encrypted; None where it is not said.
        uses_smpc: whether statistics are merged under masks; None where it is not said.
        kind: of the projects; None where it is not said.
        schema: the text of the schema, from which the least number of rows follows.
    """

    encrypts: object
    uses_smpc: object
    kind: object
    schema: str | None


def require_no_downgrade(known: FederationTerms, offered: OfferedProtection) -> None:
    """Check what the admin says now against what a peer knows.

    Raises:
        DowngradeError: SMPC or encryption is switched off, the projects are of another kind, or the minimum of rows is lower.
    """
    for name, had, has in (("SMPC", known.uses_smpc, offered.uses_smpc), ("encryption", known.encrypts, offered.encrypts)):
        if had and has not in (True, None):
            raise DowngradeError(f"terms: expected {name} as was agreed, got none")
    if offered.kind not in (known.kind, None):
        raise DowngradeError(f"terms: expected a project of the kind {known.kind} as was agreed, got another")
    if known.kind is ProjectKind.STATISTICS and (had_rows := _least_rows(known.schema)) > (rows := _least_rows(offered.schema)):
        raise DowngradeError(f"terms: expected a schema with a minimum of at least {had_rows} rows as was agreed, got {rows}")


def _least_rows(schema: str | None) -> int:
    """Return the minimum of rows that a schema asks for; 0 without one."""
    try:
        return 0 if schema is None else Schema.from_json(schema, is_agreed=True).least_rows
    except FederationValueError:
        return 0
