"""A coordinator whose key is pinned, over HTTP: an adversary on the way learns nothing; without the key it reads models."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import httpx
import numpy as np
import pytest
from asgi_server import serving, wait_until
from hostile_coordinators import FalseRound, ManInTheMiddle, Passing
from participant_driver import SetClock, live_settings, quick_settings

from pet import cli
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, CoordinatorKeyError, OtherRoundError
from pet.model_formats import BINCODE, NPY, SAFETENSORS
from pet.participant import (
    AsyncParticipant,
    AsyncTickParticipant,
    BackOff,
    Participant,
    TickParticipant,
    spawn_participant,
)
from pet.participant.test_drive import DummyFleet
from pet.transports import asgi
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.pinned import AnswerVerifier
from pet.transports.signed_answers import AnswerSigner

KEY = SigningKeyPair.from_seed(bytes(range(32)))
PINNED = KEY.public_key.hex()
SECRET = np.array([0.125, -0.5, 0.75, 0.25], np.float32)
QUICK = BackOff(initial_seconds=0.01, max_seconds=0.05)


class Trainer(Participant):
    def train_round(self, training_input):
        return SECRET


@pytest.fixture(scope="module")
def coordinator():
    """A coordinator that signs, with a model already and rounds that go on as long as there are participants."""
    service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
    with serving(asgi.create_app(service, signer=AnswerSigner(KEY))) as url:
        with contextlib.closing(HttpTransport(url, coordinator_key=PINNED)) as transport:
            DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1)
        yield url


@pytest.fixture
def adversary(coordinator):
    with ManInTheMiddle(coordinator).listening() as adversary:
        yield adversary


@pytest.fixture
def false_round():
    return FalseRound(live_settings(sum_probability=0.4).mask_config, 4)


def take_steps(participant: TickParticipant, count: int = 12) -> None:
    for _ in range(count):
        participant.tick()
        if participant.should_set_model:
            participant.set_model(SECRET)


@pytest.mark.long
def test_who_pins_no_key_is_read_by_whoever_is_on_the_way(adversary, false_round):
    adversary.forge(false_round, keeps_signature=True)
    participant = TickParticipant(adversary.url)
    take_steps(participant)
    participant.close()
    assert np.allclose(false_round.stolen[0], SECRET, atol=1e-6)


@pytest.mark.parametrize("keeps_signature", [True, False])
def test_who_pins_the_key_sends_nothing_to_a_false_round(adversary, false_round, keeps_signature):
    adversary.forge(false_round, keeps_signature=keeps_signature)
    participant = TickParticipant(adversary.url, coordinator_key=PINNED)
    take_steps(participant)
    participant.close()
    assert isinstance(participant.last_error, CoordinatorKeyError)
    assert participant.parameters is None
    with pytest.raises(CoordinatorKeyError, match="expected a signature"):
        participant.raise_permanent_error()

    async def take_part() -> AsyncTickParticipant:
        participant = AsyncTickParticipant(adversary.url, coordinator_key=KEY.public_key)
        await participant.tick()
        await participant.aclose()
        return participant

    assert isinstance(asyncio.run(take_part()).last_error, CoordinatorKeyError)

    thread = spawn_participant(adversary.url, Trainer, coordinator_key=PINNED, back_off=QUICK)
    thread.join(30)
    assert isinstance(thread.error, CoordinatorKeyError)
    thread.stop()

    async def run_task() -> None:
        async with AsyncParticipant(adversary.url, coordinator_key=PINNED, back_off=QUICK) as participant:
            async for _ in participant.global_models():
                raise AssertionError("a model of a false round")

    with pytest.raises(CoordinatorKeyError):
        asyncio.run(asyncio.wait_for(run_task(), 30))

    transport = HttpTransport(adversary.url, coordinator_key=PINNED)
    with contextlib.closing(transport), pytest.raises(CoordinatorKeyError):
        DummyFleet(transport, 3, period_seconds=0.01).run(1)
    assert not false_round.stolen


def test_a_sum_dictionary_alone_cannot_be_replaced(adversary, false_round):
    """The parameters are the real ones, so that the update is for the real coordinator; only who holds its seeds is false."""
    asked = []

    def rewrite(answer: Passing) -> Passing:
        if answer.path.startswith("/sums"):
            asked.append(answer)
            return replace(answer, status=200, body=false_round.sums)
        return answer

    adversary.rewrite = rewrite
    with contextlib.closing(HttpTransport(adversary.url, coordinator_key=PINNED)) as transport:
        transport.get_parameters()
        with pytest.raises(CoordinatorKeyError):
            transport.get_sums()
    assert len(asked) == 1


def in_one_round(work):
    """Do something that needs a round to last from its first answer to its last; a round may end in between."""
    for _ in range(20):
        with contextlib.suppress(OtherRoundError):
            return work()
    return work()


def honest(answer: Passing) -> Passing:
    return answer


def test_answers_of_other_questions_and_unsigned_ones_are_refused(adversary):
    """An adversary with all that the coordinator ever signed, but without its key."""

    def refuse(name: str, rewrite, *arguments: object) -> None:
        async def ask() -> None:
            transport = AsyncHttpTransport(adversary.url, coordinator_key=PINNED)
            try:
                await transport.get_parameters()
                adversary.rewrite = rewrite
                with pytest.raises(CoordinatorKeyError):
                    await getattr(transport, name)(*arguments)
            finally:
                adversary.rewrite = honest
                await transport.aclose()

        asyncio.run(ask())
        with contextlib.closing(HttpTransport(adversary.url, coordinator_key=PINNED)) as transport:
            transport.get_parameters()
            adversary.rewrite = rewrite
            with pytest.raises(CoordinatorKeyError):
                getattr(transport, name)(*arguments)
            adversary.rewrite = honest

    def as_nothing(answer: Passing) -> Passing:
        return replace(answer, status=204, body=b"", media_type="")

    def unsigned(answer: Passing) -> Passing:
        return replace(answer, signature=None)

    def flipped(answer: Passing) -> Passing:
        return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))

    refuse("get_model", as_nothing)  # "there is no model yet" would have it trained from nothing
    refuse("get_model", lambda answer: replace(answer, media_type="application/octet-stream"))  # read as another format
    refuse("get_model", flipped)
    for name, *arguments in (("get_model",), ("get_sums",), ("get_seeds", bytes(32))):
        refuse(name, unsigned, *arguments)
    with contextlib.closing(HttpTransport(adversary.url)) as transport:
        transport.get_sums()
    sums = adversary.seen[-1]
    assert sums.signature is not None
    refuse("get_seeds", lambda answer: sums, bytes(32))


def test_old_answers_are_refused_in_a_newer_round():
    """Each answer is signed for its round: what was recorded in one is nothing in the next."""
    clock = SetClock()
    service = CoordinatorService(CoordinatorEngine(quick_settings(), clock=clock))
    with (
        serving(asgi.create_app(service, signer=AnswerSigner(KEY))) as url,
        ManInTheMiddle(url).listening() as adversary,
        contextlib.closing(HttpTransport(adversary.url, coordinator_key=PINNED)) as transport,
    ):
        first = transport.get_parameters()
        assert transport.get_sums() is None
        old = {answer.path: answer for answer in adversary.seen}
        clock.now_seconds += 1000  # nobody joined: the next round takes its place
        service.engine.tick()
        wait_until(lambda: service.engine.parameters() != first)
        second = transport.get_parameters()
        assert second != first
        adversary.rewrite = lambda answer: old[answer.path]
        with pytest.raises(OtherRoundError, match="older"):
            transport.get_parameters()
        with pytest.raises(OtherRoundError, match="older"):
            transport.get_sums()
        adversary.rewrite = lambda answer: answer
        assert transport.get_parameters() == second
        assert transport.get_sums() is None


def test_participants_that_pin_the_key_finish_rounds_together_and_resume_them(coordinator):
    transport = HttpTransport(coordinator, coordinator_key=PINNED)
    thread = spawn_participant(coordinator, Trainer, coordinator_key=PINNED, back_off=QUICK)

    async def take_part() -> np.ndarray:
        async with AsyncParticipant(coordinator, coordinator_key=PINNED, back_off=QUICK) as participant:
            async for model in participant.global_models():
                if model is not None:
                    return model
        raise AssertionError("no model came")

    try:
        assert DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1).rounds_finished == 1
        assert len(asyncio.run(asyncio.wait_for(take_part(), 60))) == 4
    finally:
        state = thread.stop()
    assert thread.error is None
    restored = TickParticipant.restore(state, transport)  # takes the key of its transport

    def resume() -> None:
        restored.tick()
        assert restored.last_error is None
        restored.global_model()

    in_one_round(resume)
    transport.close()


def ask_for_model(url: str, method: str, media_type: str, known: httpx.Response | None = None) -> httpx.Response:
    """Ask for parameters and model, and check both signatures.

    What is `known` has the body where the answer has none; a GET then asks for another.
    """
    verifier = AnswerVerifier(KEY.public_key)
    parameters = httpx.get(f"{url}/params")
    check = verifier.expect("parameters")
    check.update(parameters.content)
    check.finish(parameters.headers["Pet-Signature"])
    headers = {"Accept": media_type}
    if known is not None and method == "GET":
        headers["If-None-Match"] = known.headers["ETag"]
    answer = httpx.request(method, f"{url}/model", headers=headers)
    if known is not None and answer.headers["ETag"] != known.headers["ETag"]:
        raise OtherRoundError("model: expected the known one, got that of a later round")
    check = verifier.expect("model")
    check.update((known or answer).content)
    check.finish(answer.headers["Pet-Signature"], media_type)
    return answer


@pytest.mark.parametrize("media_type", [BINCODE, NPY, SAFETENSORS])
def test_every_form_of_a_model_is_signed_over_its_own_bytes(coordinator, media_type):
    def ask() -> None:
        answer = ask_for_model(coordinator, "GET", media_type)
        assert answer.headers["Content-Type"].startswith(media_type)
        # Who keeps the body learns from these that it is the one of this round, too.
        assert ask_for_model(coordinator, "HEAD", media_type, answer).status_code == 200
        assert ask_for_model(coordinator, "GET", media_type, answer).status_code == 304

    in_one_round(ask)


def test_a_coordinator_without_a_key_is_refused_by_who_pins_one():
    service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
    with serving(asgi.create_app(service)) as url:
        participant = TickParticipant(url, coordinator_key=PINNED)
        participant.tick()
        participant.close()
        with pytest.raises(CoordinatorKeyError, match=r"in the header Pet-Signature, got none.*service\.coordinator_key"):
            participant.raise_permanent_error()


@pytest.mark.long
def test_commands_take_the_key(coordinator, tmp_path, capsys):
    other = SigningKeyPair.generate().public_key.hex()
    for command in (["model", "get", "-o", str(tmp_path / "m.npy")], ["test-drive", "-n", "8", "-p", "0.02", "--rounds", "1"]):
        arguments = [*command, "-u", coordinator, "--coordinator-key"]
        assert cli.run([*arguments, PINNED]) == 0
        capsys.readouterr()
        assert cli.run([*arguments, other]) == 1
        assert "expected a signature of this answer by the coordinator key" in capsys.readouterr().err
        assert cli.run([*arguments, "secret"]) == 1
        assert "coordinator key: expected a public key of 32 bytes" in capsys.readouterr().err


@pytest.mark.parametrize("make", [TickParticipant, AsyncTickParticipant, HttpTransport, AsyncHttpTransport])
def test_http_to_another_machine_needs_a_key_or_leave(make, monkeypatch):
    for variable in ("", "0", "false"):
        monkeypatch.setenv("PET_ALLOW_INSECURE", variable)
        with pytest.raises(ConfigError, match=r"expected https://, or a coordinator key.*PET_ALLOW_INSECURE=1"):
            make("http://coordinator.example:8081")
    make("http://coordinator.example:8081", coordinator_key=PINNED)
    make("http://coordinator.example:8081", allow_insecure=True)
    for safe in ("https://coordinator.example", "http://localhost:8081", "http://127.0.0.9", "http://[::1]:80"):
        make(safe)
    monkeypatch.setenv("PET_ALLOW_INSECURE", "1")
    make("http://coordinator.example:8081")
    with pytest.raises(ConfigError):
        make("http://coordinator.example:8081", allow_insecure=False)
    monkeypatch.setenv("PET_ALLOW_INSECURE", "perhaps")
    with pytest.raises(ConfigError, match="PET_ALLOW_INSECURE: expected 1 or 0, got 'perhaps'"):
        make("http://coordinator.example:8081")


def test_commands_need_leave_for_http_to_another_machine(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PET_ALLOW_INSECURE", raising=False)
    for command in (["model", "get", "-o", str(tmp_path / "m.npy")], ["test-drive", "--rounds", "1"]):
        assert cli.run([*command, "-u", "http://coordinator.invalid"]) == 1
        assert "--allow-insecure" in capsys.readouterr().err
    assert cli.run(["model", "get", "-o", str(tmp_path / "m.npy"), "-u", "http://coordinator.invalid", "--allow-insecure"]) == 1
    assert "ConnectError" in capsys.readouterr().err


def test_a_key_file_is_private_and_read_strictly(tmp_path, capsys):
    file = tmp_path / "coordinator.key"
    assert cli.run(["key", "new", str(file)]) == 0
    public = capsys.readouterr().out.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert public not in file.read_text()
    assert cli.run(["key", "show", str(file)]) == 0
    assert capsys.readouterr().out.strip() == public
    content = file.read_bytes()
    assert cli.run(["key", "new", str(file)]) == 1
    assert "expected a new file for the key" in capsys.readouterr().err
    assert file.read_bytes() == content
    seed = content.split()[1].decode()
    for bad in (b"", content[:-3], content + b"x", content.upper(), content * 2, b"\xff" * 80, bytes(5000)):
        file.write_bytes(bad)
        assert cli.run(["key", "show", str(file)]) == 1
        shown = capsys.readouterr()
        assert "key file" in shown.err or "at most 4096 bytes" in shown.err
        assert seed[:20] not in shown.err + shown.out
    file.write_bytes(content)
    file.chmod(0o640)
    assert cli.run(["key", "show", str(file)]) == 1
    assert "chmod 600" in capsys.readouterr().err
