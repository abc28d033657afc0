"""Every exception of pet, one tree.

PetError
├── ConfigError (ValueError)            a mask config that does not exist or does not fit
│   ├── PlanError                       a committee's plan that cannot be, or a slot it does not have; carries a reason
│   └── SettingsError                   a settings file or variable: names the key, the value and the rule
├── ModelError (ValueError)             weights, scalars or layouts of a caller: dtype, shape, NaN, clipping refused
├── AggregationError (ValueError)       a masked model or mask that cannot be added (spec 3.6); carries a reason
├── UnmaskError (ValueError)            a total and a mask that do not belong together (spec 3.7); carries a reason
├── BackendError (RuntimeError)         a kernel back-end that is absent or unknown
│   └── KernelsNotBuiltError (ImportError)  this copy of pet was never built; says how to build it
├── ThreadStartError (RuntimeError)     the system does not start as many threads as are needed
├── MissingExtraError (ImportError)     an optional package is not installed; names the extra
├── ProtocolError
│   ├── LocalProtocolError (RuntimeError)   our caller's fault: a call that the current state does not allow
│   ├── RemoteProtocolError (ValueError)    the peer's fault: bytes that do not decode, a message that is refused
│   ├── UnusableSeedsError                  the seeds for a sum participant do not add up to a mask
│   └── MalformedFrameError (ValueError)    a broker sent what is no part of its protocol
├── FederationError                     what a federation refuses or cannot do now (docs/spec/federation.md)
│   ├── FederationValueError (ValueError)       a value that cannot be used; names the key, never a secret
│   │   ├── ContractError                       a contract that cannot be read or does not fit; names line and column
│   │   └── RowError                            a row that cannot be learned; names the row and the feature
│   ├── FederationStateError (RuntimeError)     a call that does not fit what is there: no statistics yet, too few rows
│   │   ├── UnknownUnitError                    a later piece of a table whose first ones are not held
│   │   ├── DowngradeError                      terms with less protection than was promised
│   │   ├── RowsExistError                      rows that were learned, or forgotten, already
│   │   ├── NothingNewError                     nothing to send that was not sent before
│   │   ├── SharingError                        a rule that protects the rows forbids sharing them now
│   │   ├── StatisticsError                     statistics that do not go together, or that no rows can have
│   │   └── DeviceError                         the GPU that sums are computed on is missing, or failed; says what is missing
│   ├── NotAdministratorError (PermissionError) only the peer that created the federation may do this
│   ├── TooSoonError                            a request that is answered only so often; carries how long to wait
│   ├── TokenRefusedError (PermissionError)     a join token that is unknown, used or expired; carries a reason
│   ├── ProjectExistsError                      a project of this name exists already
│   ├── UnknownProjectError                     a user has no project of this name
│   ├── RoundError                              a federated round without a result; names the peers at fault
│   ├── PeerRefusedError                        another peer refused; carries a reason
│   ├── RequestRefusedError                     a request that a federation server answers with an error
│   ├── FederationRefusedError                  the answer of a federation server that is not one of success
│   └── FederationUnavailableError (OSError)    the broker, or the admin, did not answer in time
├── CryptoError (ValueError)            a key, seed or signature of the wrong size; a box that does not open
├── StateError (ValueError)             a saved state that cannot be restored
├── StorageError (OSError)              a storage that cannot be reached, or does not take what it is given; may pass
├── BodyError                           the body of a request that a server does not take, or an answer it does not finish
│   ├── BodyTooLargeError               it is larger than allowed
│   ├── BodyStalledError                it does not arrive
│   ├── BodyAbortedError                its sender disconnected, or declared another length
│   ├── NoRoomError                     the spool is full
│   ├── ServiceBusyError                no memory or disk for it now; again later
│   ├── ReservationLostError            it was too slow while others waited for its memory
│   └── AnswerAbandonedError            the receiver of an answer does not take it
└── TransportError (OSError)            the coordinator could not be reached, or gave an answer outside the protocol
    ├── AnswerTooLargeError             an answer above the caller's limit; it was not read
    ├── UnreachableError                no broker answered in time, or the connection was lost; again later
    ├── CounterpartOfflineError         the broker answers, but nobody listens there who could; again later
    ├── BackPressureError               what is in between is full for now; again later
    ├── MissingError                    the broker's storage has no such stream, consumer or message
    ├── SlotGoneError                   the receiver no longer has the slot of an upload; ask for another
    ├── TransportRefusedError           the request is refused and would be again: HTTP 4xx; carries the status
    │   └── MessageTooLargeError            a message above what the way to the coordinator takes: HTTP 413
    ├── UnknownProfileError             the coordinator does not speak the profile that was asked for
    ├── CertificateError                TLS: the other side's certificate is not trusted, or ours is missing or refused
    ├── CoordinatorKeyError             an answer that the pinned coordinator key did not sign
    ├── OtherRoundError                 an answer that it signed, in another round; ask again
    ├── CredentialsError                the broker refuses who we are
    ├── ForbiddenSubjectError           authenticated, but not permitted
    └── TransportConfigError            the broker is set up in a way that cannot work, or is something else
        └── PlaintextError              it offers no encryption where we require it

Messages give both values: what was expected and what came. Secrets never appear in them.

An error's `args` are the arguments of its constructor, so that pickling, copying and pools of processes rebuild it: an error
that cannot be rebuilt makes `multiprocessing.Pool` wait for ever. A constructor with more than a message sets `args` itself.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from pet._extras import install_command
from pet.shown import escape_controls

#: The longest text of an error, in characters: room for a line about each setting of a coordinator.
_MAX_TEXT: Final = 16384


class PetError(Exception):
    """Root of everything pet raises on purpose.

    The text can be printed and logged wherever it comes from: it is bounded, and what is not printable in it is escaped.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        text = message if len(message) <= _MAX_TEXT else message[:_MAX_TEXT] + "..."
        self._text = escape_controls(text, keeps="\n\t")

    def __str__(self) -> str:
        return self._text


class _ReasonedError(PetError):
    """An error that is counted by reason: a short stable identifier beside the sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.args = (reason, message)
        self.reason = reason


class ConfigError(PetError, ValueError):
    """A mask config that does not exist, or that does not fit where it was used."""


class PlanError(_ReasonedError, ConfigError):
    """A committee's plan that protects too little or is too large, or a slot or part that it does not have."""


class SettingsError(ConfigError):
    """A setting that is missing or breaks a rule; the message names the key, the value and the rule."""


class ModelError(PetError, ValueError):
    """Weights, a scalar or a layout that cannot be used as given."""


class AggregationError(_ReasonedError, ValueError):
    """A mask object that cannot be added to an aggregation (spec 3.6).

    Attributes:
        vector_index: which of several vectors is at fault, where there were several.
    """

    def __init__(self, reason: str, message: str, vector_index: int | None = None) -> None:
        super().__init__(reason, message)
        self.args = (reason, message, vector_index)
        self.vector_index = vector_index


class UnmaskError(_ReasonedError, ValueError):
    """A total that cannot be unmasked with a mask (spec 3.7)."""


class BackendError(PetError, RuntimeError):
    """A kernel back-end that is unknown, or absent on this machine."""


class ThreadStartError(PetError, RuntimeError):
    """The system does not start as many threads as a service needs: its limit is reached, or memory is short."""


class KernelsNotBuiltError(BackendError, ImportError):
    """A source tree, or a copy of its Python files, without the compiled module: `import pet` raises this."""


class MissingExtraError(PetError, ImportError):
    """An optional package is needed; the message names the extra that installs it.

    Attributes:
        name: of the package that is missing, where it is known.
    """

    def __init__(self, message: str = "", name: str | None = None) -> None:
        super().__init__(message)
        self.args = (message, name)
        self.name = name

    @classmethod
    @contextmanager
    def naming(cls, extra: str) -> Iterator[None]:
        """Wrap the imports of an extra's packages: one that is missing raises this error and names the extra."""
        try:
            yield
        except ImportError as error:
            if isinstance(error, cls):
                raise
            message = f"{error.name or error} is not installed: {install_command(extra)}"
            raise cls(message, error.name) from error


class ProtocolError(PetError):
    """Somebody broke the protocol; which side did is in the subclass."""


class LocalProtocolError(ProtocolError, RuntimeError):
    """The caller of this library did what the current state does not allow."""


class RemoteProtocolError(_ReasonedError, ProtocolError, ValueError):
    """The peer sent what cannot be decoded or must be refused; the state is as before.

    Attributes:
        reason: a short stable identifier, by which refusals are counted (see docs/protocol.md).
    """


class UnusableSeedsError(_ReasonedError, ProtocolError):
    """The seeds addressed to a sum participant do not add up to a mask.

    Attributes:
        reason: "unusable_seed" or "too_many_seeds".
    """


class MalformedFrameError(ProtocolError, ValueError):
    """A broker sent what cannot be a part of its protocol."""


class FederationError(PetError):
    """A federation refuses something, or cannot do it now."""


class FederationValueError(FederationError, ValueError):
    """A value that cannot be used.

    Attributes:
        key: the key of the request that it came under, where there is one.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.args = (message, key)
        self.key = key


class ContractError(FederationValueError):
    """A contract that cannot be read, or that does not fit the schema; names the line and the column."""


class RowError(FederationValueError):
    """A row that cannot be learned.

    Attributes:
        row: its number, from 0; headings, blank lines and further lines of a quoted field do not count.
        feature: the feature at fault; None where it is the row as a whole.
        problem: what was expected, and what came.
        line: where the row, or the fault in it, is in a file, from 1; None if it comes from none.
        column: number of the column in that file, from 1.
    """

    def __init__(self, row: int, feature: str | None, problem: str, line: int | None = None, column: int | None = None) -> None:
        where = f"row {row}" if line is None else f"line {line}"
        where += "" if column is None else f", column {column}"
        where += "" if feature is None else f", feature {feature}"
        super().__init__(f"{where}: {problem}")
        self.args = (row, feature, problem, line, column)
        self.row = row
        self.feature = feature
        self.problem = problem
        self.line = line
        self.column = column


class FederationStateError(FederationError, RuntimeError):
    """A call that does not fit what is there: nothing merged yet, too few rows, no longer a member."""


class UnknownUnitError(FederationStateError):
    """A later piece of a table whose first pieces are not held: the server was restarted, or the sender was idle for too long.

    Attributes:
        piece: its number.
    """

    def __init__(self, piece: int) -> None:
        super().__init__(f"piece: expected number 0 of a table, as none before {piece} is held here, got {piece}")
        self.args = (piece,)
        self.piece = piece


class DowngradeError(FederationStateError):
    """The admin of a federation asks for less protection than its invitation, or its earlier terms, promised."""


class RowsExistError(FederationStateError):
    """Rows that were learned, or forgotten, already; or a request whose id was used for others."""


class NothingNewError(FederationStateError):
    """There is nothing to send that was not sent before; no failure, and not logged."""


class SharingError(FederationStateError):
    """A rule that protects the rows forbids sharing statistics; nothing else is wrong, and later they may be shared."""


class StatisticsError(FederationStateError):
    """Statistics that do not go together, or that no rows can have."""


class DeviceError(FederationStateError):
    """The device that sums of rows are computed on is missing or failed; the message says what is missing."""


class NotAdministratorError(FederationError, PermissionError):
    """Only the peer that created the federation may do this."""

    def __init__(self) -> None:
        super().__init__("Not Federation Administrator")
        self.args = ()


class TooSoonError(FederationError):
    """A request that is answered only so often; it may be made again later.

    Attributes:
        retry_seconds: how long to wait.
    """

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
        self.args = (message, retry_seconds)


class TokenRefusedError(FederationError, PermissionError):
    """A join token does not open the federation.

    Attributes:
        reason: "unknown", "used", "expired" or "revoked"; for the admin's error log only. The text is the same for all.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Invalid federation token")
        self.args = (reason,)
        self.reason = reason


class ProjectExistsError(FederationError):
    """A project of this name exists already."""


class UnknownProjectError(FederationError):
    """A user has no project of this name."""


class RoundError(FederationError):
    """A round without a result; nothing was shown to anybody, and it can be tried again.

    Attributes:
        without: peers that did not do their part, and better stay out of the next attempt.
    """

    def __init__(self, message: str, without: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.without = frozenset(without)
        self.args = (message, self.without)


class PeerRefusedError(_ReasonedError, FederationError):
    """Another peer refused.

    Attributes:
        reason: a short identifier.
    """


class RequestRefusedError(FederationError):
    """A request that a federation server answers with something else than what it asked for.

    Attributes:
        status: of HTTP.
        values: entities of the answer, by key.
        headers: of the answer, beside the usual ones.
    """

    def __init__(
        self, status: int, message: str, values: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.values = dict(values or {})
        self.headers = dict(headers or {})
        self.args = (status, message, self.values, self.headers)


class FederationRefusedError(FederationError):
    """A federation server refused a request.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.args = (status, message)
        self.status = status


class FederationUnavailableError(FederationError, OSError):
    """The broker, or the admin of the federation, did not answer in time."""


class CryptoError(PetError, ValueError):
    """A key, seed, signature or box that cryptography does not accept."""


class StateError(PetError, ValueError):
    """A saved state that is damaged, of another version, or of another kind."""

    @classmethod
    @contextmanager
    def reading(cls, what: str, hint: str = "") -> Iterator[None]:
        """Wrap the reading of a state: whatever damage makes our code raise becomes this error.

        What Python says is not repeated, as it may quote a key. A storage that cannot be reached is another matter, and its
        error comes through.

        Args:
            what: the name of the state, for the error.
            hint: what can be done, put behind it.
        """
        try:
            yield
        except (StorageError, MissingExtraError):
            raise
        except PetError as error:
            raise cls(f"{what}: {error}{hint}") from None
        except _READING_ERRORS as error:
            problem = f"no {error}" if isinstance(error, KeyError) else type(error).__name__
            raise cls(f"{what}: expected a complete and consistent state, got another ({problem}){hint}") from None


#: What decoding damaged data can raise: conversions, missing keys and places, wrong types, numbers and nesting beyond bounds.
_READING_ERRORS: Final = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
    struct.error,
)


class StorageError(PetError, OSError):
    """A storage that cannot be reached, or does not take what it is given: no space, no connection. It may pass."""


class BodyError(PetError):
    """A body that a server does not take, or an answer that it does not finish; each kind has its own answer."""


class BodyTooLargeError(BodyError):
    """The body is larger than allowed."""


class BodyStalledError(BodyError):
    """The body does not arrive."""


class BodyAbortedError(BodyError):
    """The sender disconnected, or declared another length than it sent."""


class NoRoomError(BodyError):
    """The spool is full."""


class ServiceBusyError(BodyError):
    """There is no room for a body now; it has to be sent again later."""


class ReservationLostError(BodyError):
    """A body made no progress while others waited for the memory it held; it has to be sent again."""


class AnswerAbandonedError(BodyError):
    """An answer that was begun is given up; the connection is closed, so that the receiver notices."""


class TransportError(PetError, OSError):
    """The coordinator could not be reached, or its answer lies outside the protocol.

    Attributes:
        is_temporary: whether the same call may succeed later without anybody changing a setting.
    """

    is_temporary: ClassVar[bool] = True


class AnswerTooLargeError(TransportError):
    """An answer has more bytes than the caller, or the transport, allows; it was not read."""


class UnreachableError(TransportError):
    """No broker could be reached in time, or the connection was lost before the answer came."""


class CounterpartOfflineError(TransportError):
    """The broker is there; the intended receiver behind it is not."""


class BackPressureError(TransportError):
    """What is in between, or the receiver, is full or away for now.

    Attributes:
        retry_after_seconds: how long the other side asks to wait; None if it does not say.
    """

    def __init__(self, message: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.args = (message, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class MissingError(TransportError):
    """The broker's storage does not have what was asked for: no such stream, consumer or message."""


class SlotGoneError(TransportError):
    """The receiver no longer has the slot of an upload; ask for another one."""


class TransportRefusedError(TransportError):
    """The other side refuses this request, and would refuse it again.

    Attributes:
        status: of HTTP; None over another transport.
    """

    is_temporary = False

    def __init__(self, message: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.args = (message, status)
        self.status = status


class MessageTooLargeError(TransportRefusedError):
    """A message is larger than the coordinator, or a proxy in front of it, takes; smaller ones may pass."""


class UnknownProfileError(TransportError):
    """The coordinator does not speak the profile of the protocol that was asked for."""

    is_temporary = False


class CertificateError(TransportError):
    """TLS failed for a certificate: the other side's is not trusted or of another name, or ours is missing or refused."""

    is_temporary = False


class CoordinatorKeyError(TransportError):
    """An answer is not signed by the coordinator whose key is pinned, or was changed on its way."""

    is_temporary = False


class OtherRoundError(TransportError):
    """An answer is signed by the pinned coordinator, but belongs to another round than the one that was asked about."""


class CredentialsError(TransportError):
    """The broker refuses the user, password, token or key."""

    is_temporary = False


class ForbiddenSubjectError(TransportError):
    """The broker's permissions do not let this user send to, or listen on, a subject."""

    is_temporary = False


class TransportConfigError(TransportError):
    """What answers cannot work with our settings: a stream of another shape, too little memory, another protocol."""

    is_temporary = False


class PlaintextError(TransportConfigError):
    """The broker offers no encryption where it is required; nothing secret was sent."""
