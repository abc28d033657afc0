"""A refusal reaches a sender that is still sending, and does not read for ever."""

import asyncio
import time

import pytest

from pet.coordinator.app import MAX_HEADER_BYTES, SPARE_FILES, connection_limits, raise_file_limit
from pet.coordinator.settings import Settings
from pet.transports import refusal
from pet.transports.peers import parse_network
from pet.transports.refusal import LINGER_BYTES, Refusal


def refuse(messages, retry_after=None):
    """Return what was sent, and how many messages were read."""
    sent, read = [], 0

    async def receive():
        nonlocal read
        if not messages:
            await asyncio.Event().wait()
        assert sent[0]["type"] == "http.response.start"
        read += 1
        return messages[0] if len(messages) == 1 else messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(Refusal(503, retry_after)({"type": "http"}, receive, send))
    return sent, read


def piece(size, more=True):
    return {"type": "http.request", "body": bytes(size), "more_body": more}


def test_the_answer_goes_out_before_anything_is_read():
    sent, read = refuse([piece(10), piece(10, more=False)], retry_after=3)
    assert read == 2
    assert sent[0]["status"] == 503
    assert dict(sent[0]["headers"]) == {b"connection": b"close", b"content-length": b"0", b"retry-after": b"3"}
    assert sent[1] == {"type": "http.response.body", "body": b""}


def test_what_comes_for_ever_is_not_read_for_ever():
    _, read = refuse([piece(2**20)])
    assert read == LINGER_BYTES // 2**20


def test_a_sender_that_went_away_is_not_waited_for():
    assert refuse([piece(1), {"type": "http.disconnect"}])[1] == 2


def test_what_does_not_come_is_not_waited_for_long(monkeypatch):
    monkeypatch.setattr(refusal, "LINGER_SECONDS", 0.1)
    started = time.monotonic()
    assert refuse([])[1] == 0
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(("asked", "given"), [(7, 7), (10**9, raise_file_limit() - SPARE_FILES)])
def test_a_coordinator_takes_as_many_connections_as_it_is_set_and_let(asked, given):
    settings = Settings(
        service={
            "max_connections": asked,
            "max_connections_per_peer": 5,
            "max_connections_per_second": 7,
            "trusted_proxies": ["10.0.0.0/8"],
            "header_seconds": 2.5,
        }
    )
    limits = connection_limits(settings)
    assert limits.max_connections == min(asked, given)
    assert (limits.max_connections_per_peer, limits.header_seconds) == (5, 2.5)
    assert (limits.max_connections_per_second, limits.unbounded_rate) == (7, (parse_network("10.0.0.0/8"),))
    assert limits.max_header_bytes == MAX_HEADER_BYTES
