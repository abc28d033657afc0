"""Every exception of pet, one tree.

PetError
├── ConfigError (ValueError)            a mask config that does not exist or does not fit
│   └── SettingsError                   a settings file or variable: names the key, the value and the rule
├── ModelError (ValueError)             weights, scalars or layouts of a caller: dtype, shape, NaN, clipping refused
├── AggregationError (ValueError)       a masked model or mask that cannot be added (spec 3.6); carries a reason
├── UnmaskError (ValueError)            a total and a mask that do not belong together (spec 3.7); carries a reason
├── BackendError (RuntimeError)         a kernel back-end that is absent or unknown
├── MissingExtraError (ImportError)     an optional package is not installed; names the extra
├── ProtocolError
│   ├── LocalProtocolError (RuntimeError)   our caller's fault: a call that the current state does not allow
│   └── RemoteProtocolError (ValueError)    the peer's fault: bytes that do not decode, a message that is refused
├── FederationError                     what a federation refuses or cannot do now (docs/spec/federation.md)
│   ├── FederationValueError (ValueError)       a value that cannot be used; names the key, never a secret
│   ├── FederationStateError (RuntimeError)     a call that does not fit what is there: no statistics yet, too few rows
│   ├── NotAdministratorError (PermissionError) only the peer that created the federation may do this
│   ├── TokenRefusedError (PermissionError)     a join token that is unknown, used or expired; carries a reason
│   ├── FederationRefusedError                  the answer of a federation server that is not one of success
│   └── FederationUnavailableError (OSError)    the broker, or the admin, did not answer in time
├── CryptoError (ValueError)            a key, seed or signature of the wrong size; a box that does not open
├── StateError (ValueError)             a saved state that cannot be restored
├── StorageError (OSError)              a storage that cannot be reached, or does not take what it is given; may pass
└── TransportError (OSError)            the coordinator could not be reached, or gave an answer outside the protocol
    ├── UnreachableError                no broker answered in time, or the connection was lost; again later
    ├── CounterpartOfflineError         the broker answers, but nobody listens there who could; again later
    ├── BackPressureError               what is in between is full for now; again later
    ├── CredentialsError                the broker refuses who we are
    ├── ForbiddenSubjectError           the broker knows us and does not let us do this
    └── TransportConfigError            the broker is set up in a way that cannot work

Messages give both values: what was expected and what came. Secrets never appear in them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class PetError(Exception):
    """Root of everything pet raises on purpose."""


class ConfigError(PetError, ValueError):
    """A mask config that does not exist, or that does not fit where it was used."""


class SettingsError(ConfigError):
    """A setting that is missing or breaks a rule; the message names the key, the value and the rule."""


class ModelError(PetError, ValueError):
    """Weights, a scalar or a layout that cannot be used as given."""


class _ReasonedError(PetError, ValueError):
    """An error that is counted by reason: a short stable identifier beside the sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class AggregationError(_ReasonedError):
    """A mask object that cannot be added to an aggregation (spec 3.6).

    Attributes:
        vector_index: which of several vectors is at fault, where there were several.
    """

    def __init__(self, reason: str, message: str, vector_index: int | None = None) -> None:
        super().__init__(reason, message)
        self.vector_index = vector_index


class UnmaskError(_ReasonedError):
    """A total that cannot be unmasked with a mask (spec 3.7)."""


class BackendError(PetError, RuntimeError):
    """A kernel back-end that is unknown, or absent on this machine."""


class MissingExtraError(PetError, ImportError):
    """An optional package is needed; the message names the extra that installs it."""

    @classmethod
    @contextmanager
    def naming(cls, extra: str) -> Iterator[None]:
        """Wrap the imports of an extra's packages: one that is missing raises this error and names the extra."""
        try:
            yield
        except ImportError as error:
            if isinstance(error, cls):
                raise
            raise cls(f"{error.name or error} is not installed: pip install 'pet-protocol[{extra}]'") from error


class ProtocolError(PetError):
    """Somebody broke the protocol; which side did is in the subclass."""


class LocalProtocolError(ProtocolError, RuntimeError):
    """The caller of this library did what the current state does not allow."""


class RemoteProtocolError(_ReasonedError, ProtocolError):
    """The peer sent what cannot be decoded or must be refused; the state is as before.

    Attributes:
        reason: a short stable identifier, by which refusals are counted (see docs/protocol.md).
    """


class FederationError(PetError):
    """A federation refuses something, or cannot do it now."""


class FederationValueError(FederationError, ValueError):
    """A value that cannot be used.

    Attributes:
        key: the key of the request that it came under, where there is one.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class FederationStateError(FederationError, RuntimeError):
    """A call that does not fit what is there: nothing merged yet, too few rows, not a member any more."""


class NotAdministratorError(FederationError, PermissionError):
    """Only the peer that created the federation may do this."""

    def __init__(self) -> None:
        super().__init__("Not Federation Administrator")


class TokenRefusedError(FederationError, PermissionError):
    """A join token does not open the federation.

    Attributes:
        reason: "unknown", "used", "expired" or "revoked"; for the admin's error log only. The text is the same for all.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Invalid federation token")
        self.reason = reason


class FederationRefusedError(FederationError):
    """A federation server refused a request.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FederationUnavailableError(FederationError, OSError):
    """The broker, or the admin of the federation, did not answer in time."""


class CryptoError(PetError, ValueError):
    """A key, seed, signature or box that cryptography does not accept."""


class StateError(PetError, ValueError):
    """A saved state that is damaged, of another version, or of another kind."""


class StorageError(PetError, OSError):
    """A storage that cannot be reached, or does not take what it is given: no space, no connection. It may pass."""


class TransportError(PetError, OSError):
    """The coordinator could not be reached, or its answer lies outside the protocol.

    Attributes:
        is_temporary: whether the same call may succeed later without anybody changing a setting.
    """

    is_temporary: ClassVar[bool] = True


class UnreachableError(TransportError):
    """No broker could be reached in time, or the connection was lost before the answer came."""


class CounterpartOfflineError(TransportError):
    """The broker is there; whoever should answer on the other side of it is not."""


class BackPressureError(TransportError):
    """A stream or the receiver is full for now."""


class CredentialsError(TransportError):
    """The broker refuses the user, password, token or key."""

    is_temporary = False


class ForbiddenSubjectError(TransportError):
    """The broker's permissions do not let this user send to, or listen on, a subject."""

    is_temporary = False


class TransportConfigError(TransportError):
    """The broker has, or offers, something that cannot work with our settings: a stream of another shape, too little memory."""

    is_temporary = False
