"""Requests as values: each is one call of a transport, also of one that knows the calls only."""

from __future__ import annotations

import asyncio
import functools

import pytest

from pet.errors import CoordinatorKeyError
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, SendMessage
from pet.transports.base import AsyncTransport, Transport
from pet.transports.in_process import InProcessTransport
from pet.transports.pinned import AnswerVerifier
from pet.transports.requests import AsyncCalls, BlockingCalls, GetModel, carry_out

KEY, BODY = bytes(32), b"sealed"
REQUESTS = {
    "get_parameters": (GetParameters(), ()),
    "get_sums": (GetSums(), ()),
    "get_seeds": (GetSeeds(public_key=KEY), (KEY,)),
    "get_model": (GetModel(max_bytes=7), (7,)),
    "send_message": (SendMessage(body=BODY), (BODY,)),
}


class OwnTransport:
    """As a user may write one: the calls of the interface, and nothing else."""

    def __init__(self):
        self.calls = []

    def _note(self, name, *arguments, **options):
        self.calls.append((name, arguments, options))


for name in (*REQUESTS, "close"):
    setattr(OwnTransport, name, functools.partialmethod(OwnTransport._note, name))


class Recording(BlockingCalls):
    def __init__(self):
        self.requests = []

    def carry_out(self, request, *, verifier=None):
        self.requests.append((request, verifier))
        return b"answer"

    def close(self):
        """Do nothing."""


class AsyncRecording(AsyncCalls):
    def __init__(self):
        self.requests = []

    async def carry_out(self, request, *, verifier=None):
        self.requests.append((request, verifier))
        return b"answer"

    async def aclose(self):
        """Do nothing."""


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_a_call_of_any_transport(name):
    request, arguments = REQUESTS[name]
    transport = OwnTransport()
    assert isinstance(transport, Transport)
    carry_out(transport, request)
    assert transport.calls == [(name, arguments, {})]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_call_is_a_request_to_a_transport_of_pet(name):
    request, arguments = REQUESTS[name]
    options = {} if name == "send_message" else {"verifier": AnswerVerifier(KEY)}
    blocking, awaited = Recording(), AsyncRecording()
    assert isinstance(blocking, Transport)
    assert isinstance(awaited, AsyncTransport)
    answers = getattr(blocking, name)(*arguments, **options), asyncio.run(getattr(awaited, name)(*arguments, **options))
    assert answers == ((None, None) if name == "send_message" else (b"answer", b"answer"))
    assert blocking.requests == awaited.requests == [(request, options.get("verifier"))]
    assert carry_out(blocking, request, **options) == answers[0]


def test_nothing_is_signed_in_process():
    with pytest.raises(CoordinatorKeyError, match="carries signatures"):
        InProcessTransport(None).get_sums(verifier=AnswerVerifier(KEY))
