"""What cannot go away by itself is said once, and ends participants of any kind: a wrong URL, certificate or password."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from asgi_server import serving
from nats_broker import FEDERATION, running_broker
from participant_driver import wait_until

from pet import cli
from pet.errors import CertificateError, CredentialsError, PetError, TransportConfigError, TransportRefusedError
from pet.participant import AsyncParticipant, BackOff, Participant, TickParticipant, spawn_participant
from pet.transports.base import Transport
from pet.transports.guarded_tls import guarded_tls_protocol, serving_context
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.http_options import TlsOptions
from pet.transports.nats import NatsSettings, NatsTransport
from pet.transports.open_connections import ConnectionLimits

TLS = Path(__file__).parents[1] / "vectors" / "tls"
AUTHORITY = TLS / "authority.pem"
QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


@dataclass
class Problem:
    """What is wrong.

    Attributes:
        error: what it is for a participant.
        words: of its text.
        open: the way to it.
        arguments: of `pet test-drive`.
        open_async: the same way; None where connecting is the caller's business, and fails before there is a participant.
    """

    error: type[PetError]
    words: str
    open: Callable[[], Transport]
    arguments: list[str]
    open_async: Callable[[], AsyncHttpTransport] | None = field(default=None)


async def nothing_there(scope, receive, send) -> None:
    """Say 404 to every request, as a server does that is not the coordinator."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"nothing here"})


@contextlib.contextmanager
def over_http(_: Path) -> Iterator[Problem]:
    with serving(nothing_there) as url:
        yield Problem(
            TransportRefusedError,
            "GET /params: expected status 200 or 204, got 404",
            lambda: HttpTransport(url),
            ["-u", url],
            lambda: AsyncHttpTransport(url),
        )


@contextlib.contextmanager
def over_tls(words: str, tls: TlsOptions | None, *arguments: str) -> Iterator[Problem]:
    """A coordinator that lets in whom its authority knows, served as `pet coordinator` serves it."""
    limits = ConnectionLimits(max_connections=8, max_connections_per_peer=8, header_seconds=30.0, max_header_bytes=2000)
    context = serving_context(TLS / "server.pem", TLS / "server.pem", AUTHORITY)
    with serving(nothing_there, http=guarded_tls_protocol(limits, context)) as url:
        url = url.replace("http:", "https:")
        yield Problem(
            CertificateError,
            words,
            lambda: HttpTransport(url, tls=tls),
            ["-u", url, *arguments],
            lambda: AsyncHttpTransport(url, tls=tls),
        )


@contextlib.contextmanager
def over_nats(folder: Path) -> Iterator[Problem]:
    with running_broker(folder / "broker", 'authorization { user: "me", password: "right" }') as broker:
        settings = NatsSettings(hosts=(broker.url,), user="me", password="sekret", request_timeout_seconds=30)
        url = broker.url.replace("nats://", "nats://me:sekret@")
        words = "expected credentials that it accepts"
        yield Problem(CredentialsError, words, lambda: NatsTransport(settings, FEDERATION), ["-u", f"{url}/{FEDERATION}"])


@contextlib.contextmanager
def over_nats_with_tls(folder: Path) -> Iterator[Problem]:
    pem = TLS / "server.pem"
    with running_broker(folder / "broker", f'tls {{ cert_file: "{pem}", key_file: "{pem}" }}') as broker:
        url = broker.url.replace("nats:", "tls:")
        settings = NatsSettings(hosts=(url,), request_timeout_seconds=30)
        words = "expected TLS with a certificate that we trust"
        yield Problem(TransportConfigError, words, lambda: NatsTransport(settings, FEDERATION), ["-u", f"{url}/{FEDERATION}"])


PROBLEMS = {
    "404": over_http,
    "authority": lambda _: over_tls("CERTIFICATE_VERIFY_FAILED", None),
    "identity": lambda _: over_tls("CERTIFICATE_REQUIRED", TlsOptions(trusted_certificate=AUTHORITY), "-c", str(AUTHORITY)),
    "password": over_nats,
    "authority of the broker": over_nats_with_tls,
}


@pytest.fixture(params=PROBLEMS)
def problem(request, tmp_path) -> Iterator[Problem]:
    with PROBLEMS[request.param](tmp_path) as problem:
        yield problem


def warnings_of(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    found = [record for record in caplog.records if record.levelno == logging.WARNING and record.name.startswith("pet.")]
    return [record.getMessage() for record in found if words in record.getMessage()]


class Idle(Participant):
    def train_round(self, _training_input):
        raise AssertionError("there is no round")


def test_a_thread_ends_with_it(problem, caplog):
    with contextlib.closing(problem.open()) as transport:
        thread = spawn_participant(transport, Idle, back_off=QUICK)
        thread.join(60)
        thread.stop()
    assert isinstance(thread.error, problem.error)
    assert thread.error is thread.last_error
    assert problem.words in thread.status.text
    assert len(warnings_of(caplog, problem.words)) == 1


def test_a_thread_that_waits_for_repair_says_it_once(problem, caplog):
    back_off = BackOff(initial_seconds=0.005, max_seconds=0.02, waits_for_repair=True)
    with contextlib.closing(problem.open()) as transport:
        thread = spawn_participant(transport, Idle, back_off=back_off)
        wait_until(lambda: thread.last_error is not None, 60)
        thread.join(0.2)
        assert thread.is_alive()
        thread.stop()
    assert problem.words in str(thread.last_error)
    assert thread.error is None
    assert len(warnings_of(caplog, problem.words)) == 1


def test_ticks_say_it_once(problem, caplog):
    with contextlib.closing(problem.open()) as transport:
        participant = TickParticipant(transport)
        for _ in range(3):
            participant.tick()
            assert isinstance(participant.last_error, problem.error)
        assert problem.words in participant.status.text
    with pytest.raises(problem.error, match="expected"):
        participant.raise_permanent_error()
    assert len(warnings_of(caplog, problem.words)) == 1


@pytest.mark.parametrize("problem", ["404", "authority", "identity"], indirect=True)
def test_a_task_ends_with_it(problem, caplog):
    async def take_part() -> None:
        async with contextlib.aclosing(problem.open_async()) as transport, asyncio.timeout(60):
            participant = AsyncParticipant(transport, back_off=QUICK)
            participant.start()
            while participant.status.ended_by is None:
                await asyncio.sleep(0.005)
            assert isinstance(participant.status.ended_by, problem.error)
            assert participant.last_error is participant.status.ended_by
            assert problem.words in participant.status.text
            with pytest.raises(problem.error):
                await participant.stop()

    asyncio.run(take_part())
    assert len(warnings_of(caplog, problem.words)) == 1


def test_a_test_drive_ends_with_it(problem, capsys):
    assert cli.run(["test-drive", *problem.arguments, "-n", "2", "-p", "0.05"]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert problem.words in shown
    assert "sekret" not in shown
