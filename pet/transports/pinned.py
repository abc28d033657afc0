"""A participant's side of signed answers: what it takes from a coordinator whose public key it holds.

A valid signature of another round is refused, too. Which round is expected follows from the parameters that the same
participant accepted last, so each participant has a verifier of its own, also where several share a transport.

What a signature cannot do is stated in docs/security.md: answers can be withheld, and a participant that was just started
without a saved state does not know which round is the latest.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, decode_public_key, hash_sha256
from pet.errors import ConfigError, CoordinatorKeyError, OtherRoundError
from pet.protocol.participant_events import SendMessage
from pet.transports.base import AsyncTransport, Transport
from pet.transports.requests import AsyncCalls, BlockingCalls, TransportRequest, carry_out
from pet.transports.signed_answers import PARAMETERS_ROUTE, SIGNATURE_HEADER, AnswerSignature


def parse_coordinator_key(key: bytes | str) -> bytes:
    """Return the public key of a coordinator: 32 bytes, or their text in hexadecimal or base64.

    Raises:
        ConfigError: it is something else.
    """
    decoded = decode_public_key(key.strip()) if isinstance(key, str) else key
    if not isinstance(decoded, bytes) or len(decoded) != PUBLIC_KEY_BYTES:
        shown = (
            repr(key[:80]) if isinstance(key, str) else f"{len(key)} bytes" if isinstance(key, bytes) else type(key).__name__
        )
        raise ConfigError(
            f"coordinator key: expected a public key of {PUBLIC_KEY_BYTES} bytes (as text: hexadecimal or base64), got {shown}"
        )
    return decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class NewestRound:
    """The newest round that a participant has seen an answer of.

    Attributes:
        public_key: of the coordinator, 32 bytes.
        issued: as in `AnswerSignature`.
    """

    public_key: bytes
    issued: int


class AnswerVerifier:
    """Checks the answers that one participant gets; any thread may call.

    Args:
        public_key: of the coordinator, 32 bytes.
        parameters: encoded parameters of the round that the participant is in already, if it is in one.
        newest: what it knew before it was started again; of another key it says nothing.
    """

    def __init__(self, public_key: bytes, parameters: bytes | None = None, newest: NewestRound | None = None) -> None:
        self.public_key: Final = public_key
        self._lock: Final = threading.Lock()
        self._round_digest = None if parameters is None else hash_sha256(parameters)
        self._round_issued = 0
        self._latest_issued = 0 if newest is None or newest.public_key != public_key else newest.issued

    @property
    def newest(self) -> NewestRound | None:
        """The newest round so far; None before any answer."""
        with self._lock:
            issued = self._latest_issued
        return NewestRound(public_key=self.public_key, issued=issued) if issued else None

    def expect(self, route: str) -> AnswerCheck:
        """Return the check of an answer that is about to be asked for."""
        with self._lock:
            return AnswerCheck(self, route, self._round_digest, self._round_issued, self._latest_issued)

    def accept(self, signature: AnswerSignature, *, begins_round: bool) -> None:
        """Take note of an answer that was found valid."""
        with self._lock:
            if begins_round and signature.issued >= self._round_issued:
                self._round_digest, self._round_issued = signature.round_digest, signature.issued
            self._latest_issued = max(self._latest_issued, signature.issued)


class AnswerCheck:
    """The check of one answer: `update` with its bytes as they come, then `finish`."""

    def __init__(
        self, verifier: AnswerVerifier, route: str, round_digest: bytes | None, round_issued: int, latest_issued: int
    ) -> None:
        self._verifier: Final = verifier
        self._route: Final = route
        self._round_digest: Final = round_digest
        self._round_issued: Final = round_issued
        self._latest_issued: Final = latest_issued
        self._digest: Final = hashlib.sha256()

    def update(self, piece: Buffer) -> None:
        """Take the next bytes of the body."""
        self._digest.update(piece)

    def finish(self, header: str | None, media_type: str = "", *, has_body: bool = True) -> None:
        """Check the signature of the whole answer; only afterwards may anything of it be used.

        Args:
            header: value of the signature's header; None without one.
            media_type: as in `statement`.
            has_body: False for the answer that there is nothing now.

        Raises:
            CoordinatorKeyError: it is not signed, or not by the holder of the key, or for another question or body.
            OtherRoundError: it is signed, in another round.
        """
        where, key = f"coordinator's answer ({self._route})", self._verifier.public_key.hex()
        if header is None:
            raise CoordinatorKeyError(
                f"{where}: expected a signature of the coordinator key {key} in the header {SIGNATURE_HEADER}, got none: the"
                " coordinator signs nothing (service.coordinator_key), or somebody else answers in its place"
            )
        signature = AnswerSignature.parse(header)
        body_digest = self._digest.digest() if has_body else None
        if signature is None or not signature.is_valid(self._verifier.public_key, self._route, body_digest, media_type):
            raise CoordinatorKeyError(
                f"{where}: expected a signature of this answer by the coordinator key {key}, got another one: the coordinator"
                " has another key, or somebody changed the answer"
            )
        self._require_round(signature, where)
        self._verifier.accept(signature, begins_round=self._route.endswith(PARAMETERS_ROUTE))

    def _require_round(self, signature: AnswerSignature, where: str) -> None:
        if self._route.endswith(PARAMETERS_ROUTE):
            # Their digest is the signature's: the signer made both of the same parameters.
            if signature.issued < self._latest_issued:
                raise OtherRoundError(
                    f"{where}: expected no older round than the last one, got one that began"
                    f" {(self._latest_issued - signature.issued) / 1000:g} s before; somebody repeats old answers, or the"
                    " coordinator's clock was set back"
                )
        elif self._round_digest is None:
            raise OtherRoundError(f"{where}: expected round parameters to be accepted before, got none yet")
        elif signature.round_digest != self._round_digest:
            age = "newer" if signature.issued > self._round_issued else "older"
            expected = f"round {self._round_digest.hex()[:16]}"
            raise OtherRoundError(f"{where}: expected {expected}, got {signature.round_digest.hex()[:16]}, which is {age}")


@runtime_checkable
class VerifyingTransport(Transport, Protocol):
    """A transport whose coordinator can sign: its questions take a keyword `verifier`, which has to accept the answer."""

    @property
    def coordinator_key(self) -> bytes | None:
        """The public key that it was given; None without one."""
        ...


@runtime_checkable
class AsyncVerifyingTransport(AsyncTransport, Protocol):
    """`VerifyingTransport` for asyncio."""

    @property
    def coordinator_key(self) -> bytes | None:
        """The public key that it was given; None without one."""
        ...


class PinnedTransport(BlockingCalls):
    """`Transport` of one participant on top of one that others may use, too.

    Args:
        inner: the way to the coordinator.
        verifier: of this participant.
    """

    def __init__(self, inner: VerifyingTransport, verifier: AnswerVerifier) -> None:
        self._inner: Final = inner
        self._verifier: Final = verifier

    @property
    def newest(self) -> NewestRound | None:
        """The newest round that an answer was of."""
        return self._verifier.newest

    def carry_out(self, request: TransportRequest, *, verifier: AnswerVerifier | None = None) -> Any:
        """Have the transport below do what a request says, and take no answer that this participant's verifier refuses."""
        options = {} if isinstance(request, SendMessage) else {"verifier": verifier or self._verifier}
        return carry_out(self._inner, request, **options)

    def end_requests(self) -> None:
        """End what is under way, where the transport can."""
        end_requests = getattr(self._inner, "end_requests", None)
        if end_requests is not None:
            end_requests()

    def close(self) -> None:
        """Close the transport below."""
        self._inner.close()


class AsyncPinnedTransport(AsyncCalls):
    """`AsyncTransport` of one participant; see `PinnedTransport`."""

    def __init__(self, inner: AsyncVerifyingTransport, verifier: AnswerVerifier) -> None:
        self._inner: Final = inner
        self._verifier: Final = verifier

    @property
    def newest(self) -> NewestRound | None:
        """The newest round that an answer was of."""
        return self._verifier.newest

    async def carry_out(self, request: TransportRequest, *, verifier: AnswerVerifier | None = None) -> Any:
        """Have the transport below do what a request says, and take no answer that this participant's verifier refuses."""
        options = {} if isinstance(request, SendMessage) else {"verifier": verifier or self._verifier}
        return await carry_out(self._inner, request, **options)

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._inner.aclose()


def pin(transport: Transport, key: bytes | None, parameters: bytes | None, newest: NewestRound | None) -> Transport:
    """Return a transport that takes signed answers only, if there is a key: the one given, or the transport's own.

    Args:
        transport: the way to the coordinator.
        key: public key of the coordinator.
        parameters: of the round that the participant is in already.
        newest: what it knew before it was started again.

    Raises:
        ConfigError: a key was given, and the transport carries no signatures.
    """
    key = _key_for(transport, key)
    if key is None:
        return transport
    if not isinstance(transport, VerifyingTransport):
        raise _unable(transport)
    return PinnedTransport(transport, AnswerVerifier(key, parameters, newest))


def pin_async(
    transport: AsyncTransport, key: bytes | None, parameters: bytes | None, newest: NewestRound | None
) -> AsyncTransport:
    """Do what `pin` does, for asyncio."""
    key = _key_for(transport, key)
    if key is None:
        return transport
    if not isinstance(transport, AsyncVerifyingTransport):
        raise _unable(transport)
    return AsyncPinnedTransport(transport, AnswerVerifier(key, parameters, newest))


def _key_for(transport: object, key: bytes | None) -> bytes | None:
    own = getattr(transport, "coordinator_key", None)
    return own if key is None and isinstance(own, bytes) else key


def _unable(transport: object) -> ConfigError:
    return ConfigError(f"coordinator key: expected a transport that carries signatures, got {type(transport).__name__}")
