"""The signatures of the HTTP routes: which header each answer gets, and the digests of models, which are made once.

Without a key every header is absent, and nothing is read or digested for it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from pet.crypto import hash_sha256
from pet.transports.base import PublishedModel
from pet.transports.service import Service
from pet.transports.signed_answers import (
    MODEL_ROUTE,
    PARAMETERS_ROUTE,
    SEEDS_ROUTE,
    SIGNATURE_HEADER,
    SUMS_ROUTE,
    AnswerSigner,
    read_in_round,
)

Headers = dict[str, str]


class SignedReads:
    """Reads of a coordinator, each with the header that goes with it.

    Args:
        service: the coordinator.
        signer: None signs nothing.
    """

    def __init__(self, service: Service, signer: AnswerSigner | None) -> None:
        self._service: Final = service
        self._endpoint: Final = service.endpoint
        self._signer: Final = signer
        #: The parameters of a round, and in that round the signature by sum participant.
        self._signed_seeds: tuple[bytes, dict[bytes, str]] = b"", {}
        #: Media type -> the model that is served in it, and its digest when it is there.
        self._digests: Final[dict[str, tuple[PublishedModel, asyncio.Future[bytes]]]] = {}

    def parameters(self) -> tuple[bytes | None, Headers]:
        """Return the round parameters."""
        parameters = self._endpoint.parameters()
        if self._signer is None or parameters is None:
            return parameters, {}
        return parameters, {SIGNATURE_HEADER: self._signer.sign_published(PARAMETERS_ROUTE, parameters, parameters)}

    def sums(self) -> tuple[bytes | None, Headers]:
        """Return the sum dictionary."""
        parameters, sums = read_in_round(self._endpoint, self._endpoint.sums)
        if self._signer is None or parameters is None:
            return sums, {}
        return sums, {SIGNATURE_HEADER: self._signer.sign_published(SUMS_ROUTE, parameters, sums)}

    def seeds(self, public_key: bytes) -> tuple[bytes | None, Headers]:
        """Return the seed dictionary of one sum participant; for a worker thread."""
        parameters, seeds = read_in_round(self._endpoint, lambda: self._endpoint.seeds(public_key))
        if self._signer is None or parameters is None:
            return seeds, {}
        if self._signed_seeds[0] is not parameters:
            self._signed_seeds = parameters, {}
        signed = self._signed_seeds[1]
        if seeds is None or public_key not in signed:
            digest = None if seeds is None else hash_sha256(seeds)
            signature = self._signer.sign(SEEDS_ROUTE + public_key.hex(), parameters, digest)
            if seeds is None:
                return None, {SIGNATURE_HEADER: signature}
            signed[public_key] = signature  # the dictionary of a participant is published once in a round
        return seeds, {SIGNATURE_HEADER: signed[public_key]}

    def model(self) -> tuple[PublishedModel | None, bytes | None]:
        """Return the global model, and the parameters of the round in which it is the last one."""
        parameters, model = read_in_round(self._endpoint, self._endpoint.model)
        return model, parameters

    async def model_headers(
        self,
        model: PublishedModel | None,
        parameters: bytes | None,
        media_type: str = "",
        pieces: Callable[[], Iterator[bytes]] = lambda: iter(()),
    ) -> Headers:
        """Return the header of a model.

        Args:
            model: None for the answer that there is none.
            parameters: as `model` returned them.
            media_type: that the model is sent in.
            pieces: makes the body anew; asked once for each model and media type.
        """
        if self._signer is None or parameters is None:
            return {}
        digest = None if model is None else await self._digest(model, media_type, pieces)
        return {SIGNATURE_HEADER: self._signer.sign(MODEL_ROUTE, parameters, digest, media_type)}

    async def _digest(self, model: PublishedModel, media_type: str, pieces: Callable[[], Iterator[bytes]]) -> bytes:
        """Return the digest of a body; who asks while it is made waits for the same one."""
        kept = self._digests.get(media_type)
        if kept is None or kept[0] is not model or (kept[1].done() and kept[1].exception() is not None):
            making = asyncio.ensure_future(self._service.run(_digest_pieces, pieces))
            kept = self._digests[media_type] = model, making
        # A client that disconnects must not cancel what others wait for.
        return await asyncio.shield(kept[1])


def _digest_pieces(pieces: Callable[[], Iterator[bytes]]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    return digest.digest()
