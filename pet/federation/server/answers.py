"""The envelope of every answer, and which error becomes which answer. Knows status codes and texts, and no request.

Source: docs/spec/federation.md 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from pet.errors import (
    DowngradeError,
    FederationError,
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    NotAdministratorError,
    PeerRefusedError,
    ProjectExistsError,
    RequestRefusedError,
    RoundError,
    RowsExistError,
    TokenRefusedError,
    TooSoonError,
    UnknownUnitError,
)
from pet.federation.records import Mode


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with.

    Attributes:
        status: HTTP status; its name is the `statusCode` of the envelope.
        text: `statusString`.
        values: entities by key.
        headers: beside the usual ones.
    """

    status: HTTPStatus = HTTPStatus.OK
    text: str = "OK"
    values: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def envelope(self) -> dict[str, Any]:
        """Return the JSON object that is sent."""
        return {"statusCode": self.status.name, "statusString": self.text, "values": self.values}


def refuse(status: HTTPStatus, text: str, /, **values: Any) -> RequestRefusedError:
    """Return the exception that answers so."""
    return RequestRefusedError(status, text, values)


def about_a_project(error: FederationError, mode: Mode, customer_id: str, project_id: str) -> RequestRefusedError:
    """Return the answer to a name that no project has, or one has already, in words that clients of the mode may match."""
    is_compat = mode is Mode.COMPAT
    if isinstance(error, ProjectExistsError):
        text = f"Customer [{customer_id}] already have SYMETRYML with id[{project_id}], "
        return refuse(
            HTTPStatus.CONFLICT, text if is_compat else f"Project [{project_id}] of user [{customer_id}] exists already"
        )
    text = f"Cannot Find SYMETRYML id[{project_id}] for Customer id [{customer_id}]"
    return refuse(HTTPStatus.BAD_REQUEST, text if is_compat else f"User [{customer_id}] has no project [{project_id}]")


def answer_for(error: FederationError) -> Answer:
    """Return what an error is answered with. Texts of federation errors hold no secret."""
    match error:
        case RequestRefusedError():
            return Answer(HTTPStatus(error.status), str(error), error.values, error.headers)
        case FederationValueError():
            return Answer(HTTPStatus.BAD_REQUEST, str(error))
        case NotAdministratorError():
            return Answer(HTTPStatus.FORBIDDEN, "Not Federation Administrator")
        case TokenRefusedError():
            return Answer(HTTPStatus.FORBIDDEN, "Invalid federation token")
        case FederationUnavailableError():
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"Federation backend unavailable: {error}")
        case UnknownUnitError():
            return Answer(HTTPStatus.GONE, str(error))
        case TooSoonError():
            headers = {"retry-after": str(math.ceil(error.retry_seconds))}
            return Answer(HTTPStatus.TOO_MANY_REQUESTS, str(error), headers=headers)
        case RowsExistError():
            return Answer(HTTPStatus.CONFLICT, str(error))
        case DowngradeError() | PeerRefusedError() | RoundError():
            return Answer(HTTPStatus.BAD_GATEWAY, str(error))
        case FederationStateError():
            return Answer(HTTPStatus.BAD_REQUEST, str(error))
        case _:
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
