"""Fuzzing targets of the objects of pet/1: any bytes give an object or RemoteProtocolError, and an object has one encoding.

What is signed is signed here with the keys of a small round, so that what comes behind a signature is reached as well.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import pet
from pet import edwards
from pet.crypto import EncryptionKeyPair, SigningKeyPair, seal
from pet.errors import RemoteProtocolError, SettingsError, StateError
from pet.field_config import FieldConfig
from pet.participant.pet1_state import SavedPet1Participant
from pet.pet1.answers import UpdateOpen, UpdateRefused, read_answer, read_piece
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, parse_sum2, read_check
from pet.pet1.committee import Committee, build_sum, read_sum
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy
from pet.pet1.enrolment_file import parse_enrolment
from pet.pet1.federation import Called, enrol_federation, read_calls
from pet.pet1.hashes import sign_text
from pet.pet1.leaves import Upload, build_update, derive_leaf_digests, derive_vector_digest, read_update
from pet.pet1.ledger import LedgerEntry, RoundLedger
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, sign_message
from pet.pet1.payloads import open_pet1_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets
from pet.protocol.pet1_entries import SlotEntry, UploadEntry, encode_entry, restore_entries
from pet.protocol.pet1_leaf_store import MemoryLeafStore
from pet.protocol.pet1_member import MemberMachine, MemberSecrets
from pet.protocol.pet1_participant import UpdateParticipant
from pet.protocol.pet1_peer import PeerState
from pet.protocol.pet1_round import Pet1Round
from pet.protocol.phases import Phase

#: Update participants, the first of whom is the one member, too.
KEYS = [SigningKeyPair.from_seed(bytes([number]) * 32) for number in (1, 2, 3)]
VECTOR = bytes(range(12))
POLICY = EnrolmentPolicy(digest=bytes(32))
HEADER = "pet-1 header"


class SmallRound(NamedTuple):
    """A round of one member and three updates."""

    committee: Committee
    headers: dict[bytes, ShareHeader]
    manifest: UpdateManifest
    upload: Upload


@functools.cache
def small_round() -> SmallRound:
    participants = sorted(key.public_key for key in KEYS)
    plan = pet.Plan(groups=1, members=1, threshold=1, quorum=1)
    members = (KEYS[0].public_key,)
    enrolment = Enrolment(version=1, plan=plan, min_updates=3, members=members, participants=tuple(participants))
    record = RoundRecord(
        config=FieldConfig.parse("pet-1/z32,f32,bound=1,models=10"),
        model_length=2,
        min_updates=3,
        number=1,
        update_seconds=1,
        check_seconds=1,
        sum2_seconds=1,
        coordinator_key=bytes(32),
        seed=bytes(32),
        enrolment_digest=enrolment.digest,
    )
    point = edwards.multiply_base(edwards.reduce_scalar(bytes([5]) * 64))
    committee = Committee.of(record, enrolment, [build_sum(KEYS[0], record, 0, point)])
    headers = [make_header(committee, key) for key in KEYS]
    upload = Upload(record=record, context=headers[0].context, leaf_digests=derive_leaf_digests(VECTOR, headers[0].context))
    return SmallRound(
        committee, {header.participant: header for header in headers}, UpdateManifest.of(committee, headers), upload
    )


def make_header(committee: Committee, key: SigningKeyPair) -> ShareHeader:
    secrets = UpdateSecrets.from_random(key.public_key * 3)
    context = ShareHeader.build(key, committee, secrets, bytes(32)).context
    digest = derive_vector_digest(derive_leaf_digests(VECTOR, context), len(VECTOR), secrets.salt)
    return ShareHeader.build(key, committee, secrets, digest)


def fuzz_enrolment(data: bytes) -> None:
    """Enrolments as bytes, with a signature behind them, and as people write them."""
    with contextlib.suppress(RemoteProtocolError):
        assert Enrolment.from_bytes(data).to_bytes() == data
    with contextlib.suppress(RemoteProtocolError):
        EnrolmentPolicy(digest=bytes(32)).accept(data, now=0)
    with contextlib.suppress(SettingsError, pet.ConfigError):
        parse_enrolment(data.decode("utf-8", "replace"))


def fuzz_round_record(data: bytes) -> None:
    """Round records."""
    with contextlib.suppress(RemoteProtocolError):
        assert RoundRecord.from_bytes(data).to_bytes() == data


def fuzz_lists(data: bytes) -> None:
    """Committees, manifests and certificates, as they come."""
    committee, headers, manifest, _ = small_round()
    with contextlib.suppress(RemoteProtocolError):
        assert Committee.from_bytes(data, committee.record, committee.enrolment).to_bytes() == data
    with contextlib.suppress(RemoteProtocolError):
        assert UpdateManifest.from_bytes(data, committee, headers).to_bytes() == data
    with contextlib.suppress(RemoteProtocolError):
        assert Certificate.from_bytes(data, committee, manifest).to_bytes() == data


def fuzz_share_header(data: bytes) -> None:
    """Share headers, signed by the first participant; and the payload of a Sum2, and a piece of a vector."""
    committee, _, _, upload = small_round()
    with contextlib.suppress(RemoteProtocolError):
        signed = data + sign_text(KEYS[0], HEADER, data)
        assert ShareHeader.from_bytes(signed, committee).data == signed
    with contextlib.suppress(RemoteProtocolError):
        parse_sum2(data, committee.record, data[:32])
    with contextlib.suppress(RemoteProtocolError):
        for index, leaf in enumerate(upload.check_piece(0, data)):
            upload.check_leaf(index, leaf)


def fuzz_messages(data: bytes) -> None:
    """Payloads of Sum, Update and Check, signed by the one member: the first byte says which; others as they came."""
    if not data:
        return
    committee, _, manifest, _ = small_round()
    kind, rest = data[0] % 4, data[1:]
    if kind < 3:
        tag = (Pet1Tag.SUM, Pet1Tag.UPDATE, Pet1Tag.CHECK)[kind]
        rest = sign_message(KEYS[0], committee.record.coordinator_key, tag, rest)
    for read in (
        lambda: read_sum(rest, committee.record, committee.enrolment),
        lambda: read_update(rest, committee),
        lambda: read_check(rest, committee, manifest),
        lambda: Certificate.of([rest], committee, manifest),
    ):
        with contextlib.suppress(RemoteProtocolError):
            read()


def fuzz_calls(data: bytes) -> None:
    """Answers to the call of a federation's round, as they come."""
    enrolment = enrol_federation(1, 1, [key.public_key for key in KEYS])
    with contextlib.suppress(RemoteProtocolError):
        read_calls(data, enrolment)


def fuzz_answers(data: bytes) -> None:
    """What a coordinator answers to an update, of a vector of as many leaves as the first byte says; and bodies of pieces."""
    leaf_count = data[0] % 40 + 1 if data else 1
    with contextlib.suppress(RemoteProtocolError):
        assert read_answer(data[1:], leaf_count).encode() == data[1:]
    with contextlib.suppress(RemoteProtocolError):
        header_digest, first, leaves = read_piece(data)
        assert header_digest + first.to_bytes(4, "little") + bytes(leaves) == data


def fuzz_states(data: bytes) -> None:
    """Saved states of participants and members, and ledgers."""
    with contextlib.suppress(StateError):
        UpdateParticipant(signing_key=KEYS[0], policy=POLICY, entropy=bytes, store=bytes, saved=data)
    with contextlib.suppress(StateError):
        MemberMachine(signing_key=KEYS[0], policy=POLICY, entropy=bytes, store=bytes, saved=data)
    with contextlib.suppress(StateError):
        RoundLedger.decode(data)
    with contextlib.suppress(StateError):
        saved = SavedPet1Participant.decode(data)
        assert SavedPet1Participant.decode(saved.encode()) == saved


def fuzz_entries(data: bytes) -> None:
    """Entries of a coordinator's round, each behind its length, and first the phase that the round was in."""
    committee, headers, _, _ = small_round()
    served = committee.enrolment.sign(KEYS[0])
    current = Pet1Round.begin(EncryptionKeyPair.from_seed(bytes(32)), committee.record, served)
    store = MemoryLeafStore({header.digest: {0: VECTOR} for header in headers.values()})
    phase = (Phase.SUM, Phase.UPDATE, Phase.CHECK, Phase.SUM2)[data[0] % 4 if data else 0]
    entries, place = [], 1
    while place < len(data):
        size = int.from_bytes(data[place : place + 2], "little")
        entries.append(data[place + 2 : place + 2 + size])
        place += 2 + size
    with contextlib.suppress(StateError), StateError.reading("entries"):
        restore_entries(current, entries, phase, store)


def fuzz_bodies(data: bytes) -> None:
    """Bodies of requests, sealed here."""
    keys = EncryptionKeyPair.from_seed(bytes(32))
    for tag in (Pet1Tag.CHECK, Pet1Tag.SUM2, None):
        with contextlib.suppress(RemoteProtocolError):
            open_pet1_message(seal(data, keys.public_key), keys, tag)


PET1_DECODERS: Mapping[str, Callable[[bytes], None]] = {
    "pet1_enrolment": fuzz_enrolment,
    "pet1_round_record": fuzz_round_record,
    "pet1_lists": fuzz_lists,
    "pet1_share_header": fuzz_share_header,
    "pet1_messages": fuzz_messages,
    "pet1_calls": fuzz_calls,
    "pet1_answers": fuzz_answers,
    "pet1_states": fuzz_states,
    "pet1_entries": fuzz_entries,
    "pet1_bodies": fuzz_bodies,
}


def pet1_seeds() -> Iterator[tuple[str, bytes]]:
    """Yield target and input: valid ones, from which fuzzing begins."""
    committee, headers, manifest, _ = small_round()
    key, record = KEYS[0], committee.record
    header = headers[key.public_key]
    yield "pet1_enrolment", committee.enrolment.to_bytes()
    yield "pet1_enrolment", committee.enrolment.sign(key)
    yield (
        "pet1_enrolment",
        b"version = 1\n[plan]\nmembers = 1\nthreshold = 1\nquorum = 1\n[[members]]\nkey = '" + b"00" * 32 + b"'\n",
    )
    yield "pet1_round_record", record.to_bytes()
    check = build_check(key, record, manifest.root, {key.public_key: bytes(96)})
    for listed in (committee.to_bytes(), manifest.to_bytes(), Certificate.of([check], committee, manifest).to_bytes()):
        yield "pet1_lists", listed
    secrets = UpdateSecrets.from_random(key.public_key * 3)
    update = build_update(key, committee, header, secrets.salt, derive_leaf_digests(VECTOR, header.context))
    yield "pet1_share_header", header.data[:-64]
    yield "pet1_share_header", VECTOR
    yield "pet1_share_header", bytes(32) + VECTOR
    sums = committee.sums[0]
    assert sums is not None
    for number, message in enumerate((sums, update, check)):
        yield "pet1_messages", bytes([number]) + message[136:]
        yield "pet1_messages", b"\3" + message
    calls = [Called(peer=each.public_key, number=1, version=3).sign(each) for each in KEYS]
    yield "pet1_calls", b"".join(sorted(calls, key=lambda call: call[16:48]))
    yield "pet1_answers", b"\2" + UpdateOpen(8, (True, False, True)).encode()
    yield "pet1_answers", b"\0" + UpdateRefused("wrong_leaf").encode()
    yield "pet1_answers", bytes(36) + VECTOR
    secrets = MemberSecrets(record=bytes(32), scalar=bytes(32), sum_message=sums)
    for role, texts in (("update participant", {}), ("member", secrets.encode())):
        state = PeerState(role=role, last_number=7, secrets=texts).encode()
        yield "pet1_states", state
    participant = SavedPet1Participant(signing_seed=bytes(32), scalar=Fraction(1, 3), max_message_size=700, peer=state)
    yield "pet1_states", participant.encode()
    entry = LedgerEntry(number=1, versions={key.public_key: 2}, groups=1, members=frozenset({key.public_key}))
    yield "pet1_states", RoundLedger(key.public_key, [entry]).encode()
    yield "pet1_bodies", check
    yield from (("pet1_entries", seed) for seed in entry_seeds(committee, manifest))


def entry_seeds(committee: Committee, manifest: UpdateManifest) -> Iterator[bytes]:
    """Yield the entries of a round as far as each phase."""
    key, record = KEYS[0], committee.record
    check = build_check(key, record, manifest.root, {})
    certificate = Certificate.of([check], committee, manifest)
    messages = [[SlotEntry(Pet1Tag.SUM, 0, (committee.sums[0] or b"",))], [], []]
    for each in KEYS:
        header, secrets = manifest.headers[each.public_key], UpdateSecrets.from_random(each.public_key * 3)
        update = build_update(each, committee, header, secrets.salt, derive_leaf_digests(VECTOR, header.context))
        messages[1].append(UploadEntry(each.public_key, update))
    messages[2].append(SlotEntry(Pet1Tag.CHECK, 0, (check,)))
    messages.append([SlotEntry(Pet1Tag.SUM2, 0, (bytes(136), certificate.digest + VECTOR))])
    for phase in range(4):
        entries = [b"".join(encode_entry(entry)) for group in messages[: phase + 1] for entry in group]
        yield bytes([phase]) + b"".join(len(entry).to_bytes(2, "little") + entry for entry in entries)
