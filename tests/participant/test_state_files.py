"""State that survives: a file written before anything is sent, owned by one process; and waits that spread out and end."""

from __future__ import annotations

import asyncio
import multiprocessing

import numpy as np
import pytest
from participant_driver import LiveCoordinator, LiveTransport, live_settings, round_parameters, wait_until

from pet.crypto import EncryptionKeyPair
from pet.errors import ConfigError, StateError, TransportError
from pet.messages import encode_sum_dictionary
from pet.participant import AsyncParticipant, BackOff, Participant, TickParticipant, spawn_participant
from pet.participant.back_off import Patience
from pet.participant.state_file import StateFile

QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


class Constant(Participant):
    def train_round(self, training_input):
        return np.full(4, 0.5, np.float32)


class Recording:
    """An update round in which sending fails: keeps each body, and what the state file held when it was sent."""

    def __init__(self, path) -> None:
        self.path = path
        self.parameters = round_parameters("update")
        self.sent: list[tuple[bytes, bytes]] = []

    def get_parameters(self) -> bytes:
        return self.parameters.to_bytes()

    def get_sums(self):
        return encode_sum_dictionary({bytes(32): EncryptionKeyPair.from_seed(bytes(32)).public_key})

    def get_model(self, max_bytes=None):
        return None

    def send_message(self, body) -> None:
        self.sent.append((bytes(body), self.path.read_bytes()))
        raise TransportError("coordinator: expected an answer, got none")

    def close(self) -> None:
        pass


class AsyncRecording(Recording):
    async def get_parameters(self) -> bytes:
        return super().get_parameters()

    async def get_sums(self):
        return super().get_sums()

    async def get_model(self, max_bytes=None):
        return None

    async def send_message(self, body) -> None:
        super().send_message(body)

    async def aclose(self) -> None:
        pass


def first_body_of(state, path):
    """What a participant restored from a saved state sends first."""
    transport = Recording(path)
    participant = TickParticipant.restore(state, transport)
    wait_until(lambda: participant.tick() is not None and bool(transport.sent))
    return transport.sent[0][0]


def test_what_is_sent_is_on_the_disk_before(tmp_path):
    """Whenever the process is killed, the restarted one sends the very same bytes: never two models under one signature."""
    path = tmp_path / "state"
    transport = Recording(path)
    thread = spawn_participant(transport, Constant, state_file=path, back_off=QUICK)
    wait_until(lambda: len(transport.sent) >= 3)
    thread.stop()
    assert thread.error is None
    assert len({body for body, _ in transport.sent}) == 1
    body, state = transport.sent[0]
    assert first_body_of(state, path) == body
    assert path.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"state", "state.lock"}


def test_the_same_for_asyncio(tmp_path):
    path = tmp_path / "state"
    transport = AsyncRecording(path)

    async def run():
        async with AsyncParticipant(transport, state_file=str(path), back_off=QUICK) as participant:
            while not participant.is_model_wanted:
                await asyncio.sleep(0.005)
            participant.set_local_model(np.full(4, 0.5, np.float32))
            while not transport.sent:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(run(), 30))
    body, state = transport.sent[0]
    assert first_body_of(state, path) == body
    StateFile(path).close()


def test_a_restart_goes_on_as_the_same_participant(tmp_path):
    with LiveCoordinator(live_settings(sum_probability=0.4)) as coordinator:
        paths = [tmp_path / str(number) for number in range(8)]
        keys = []
        for _ in range(2):
            threads = [spawn_participant(LiveTransport(coordinator), Constant, state_file=p, back_off=QUICK) for p in paths]
            rounds = coordinator.engine.status()["rounds_completed"]
            wait_until(lambda rounds=rounds: coordinator.engine.status()["rounds_completed"] > rounds)
            for thread in threads:
                thread.stop()
            keys.append([thread.name for thread in threads])
    assert keys[0] == keys[1]


def _take(path, answers):
    try:
        StateFile(path)
    except StateError as error:
        answers.put(str(error))
    else:
        answers.put("taken")


def test_a_second_process_is_refused(tmp_path):
    file = StateFile(tmp_path / "state")
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_take, args=(tmp_path / "state", answers))
    process.start()
    assert "another process" in answers.get(timeout=30)
    process.join()
    file.close()
    file.close()
    with pytest.raises(StateError, match="folder"):
        StateFile(tmp_path / "absent" / "state")


def test_a_damaged_or_public_file_is_refused_and_given_free(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"not a state")
    path.chmod(0o600)
    for start in (
        lambda: spawn_participant("http://127.0.0.1:1", Constant, state_file=path),
        lambda: AsyncParticipant("http://127.0.0.1:1", state_file=path),
    ):
        with pytest.raises(StateError):
            start()
    path.chmod(0o644)
    file = StateFile(path)
    with pytest.raises(StateError, match="mode 644"):
        file.load()
    file.close()
    assert path.read_bytes() == b"not a state"


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_a_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch):
    file = StateFile(tmp_path / "state")
    assert file.load() is None
    file.save(b"one")
    with monkeypatch.context() as patch:
        patch.setattr("pet.files.os.fsync", no_space)
        with pytest.raises(StateError, match="write"):
            file.save(b"two")
    assert file.load() == b"one"
    assert {path.name for path in tmp_path.iterdir()} == {"state", "state.lock"}
    file.close()


def test_what_a_crash_left_of_a_state_is_removed_with_its_keys(tmp_path):
    (tmp_path / "state.next").write_bytes(b"as version 0.1.0 named it")
    (tmp_path / "state.0123abcd.unfinished").write_bytes(b"as it is named today")
    (tmp_path / "state2.0123abcd.unfinished").write_bytes(b"another participant's")
    StateFile(tmp_path / "state").close()
    assert {path.name for path in tmp_path.iterdir()} == {"state.lock", "state2.0123abcd.unfinished"}


def test_waits_are_shortened_at_random_within_the_jitter():
    back_off = BackOff(jitter=0.25)
    assert back_off.shorten(8.0, lambda: 0.0) == 8.0
    assert back_off.shorten(8.0, lambda: 1.0) == 6.0
    assert len({back_off.shorten(8.0) for _ in range(10)}) > 1
    for bad in ({"jitter": 1.5}, {"jitter": -0.1}, {"give_up_seconds": 0.0}):
        with pytest.raises(ConfigError, match=f"back-off: {next(iter(bad))}: expected"):
            BackOff(**bad)


def test_patience_ends_only_after_an_unbroken_absence():
    now = [0.0]
    patience = Patience(BackOff(give_up_seconds=10), clock=lambda: now[0])
    lost = TransportError("coordinator: expected an answer, got none")
    patience.note(lost)
    now[0] = 9.0
    patience.note(lost)
    patience.note(None)
    now[0] = 18.0
    patience.note(lost)
    now[0] = 28.0
    with pytest.raises(TransportError, match="within 10 s"):
        patience.note(lost)
    forever = Patience(BackOff(), clock=lambda: now[0])
    forever.note(lost)
    now[0] = 1e12
    forever.note(lost)


def test_a_participant_gives_up_when_told_to():
    back_off = BackOff(initial_seconds=0.005, max_seconds=0.02, give_up_seconds=0.2)
    thread = spawn_participant("http://127.0.0.1:1", Constant, back_off=back_off)
    thread.join(20)
    assert isinstance(thread.error, TransportError)
    assert "within 0.2 s" in str(thread.error)
    thread.stop()
