"""Envelopes between peers: whatever was changed, replayed, misdirected or mistimed is refused."""

import os
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import FederationValueError, RemoteProtocolError
from pet.federation.formats.encoding import encode_base64
from pet.federation.formats.identities import decode_identity, encode_identity
from pet.federation.peer.messages import MessageCodec, Protection
from pet.federation.peer.terms_update import TermsUpdate
from pet.federation.records import ContractRecord, FederationTerms, PeerKeys, ProjectKind, ScheduleRecord
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.secret import Secret

NOW = 1_800_000_000.0
SENDER, RECEIVER, OTHER = (PeerKeys.generate() for _ in range(3))
TERMS = FederationTerms(
    federation_id="a" * 16,
    name="tests",
    secret_key=Secret(encode_base64(bytes(16))),
    admin=SENDER.identity(),
    schedule=ScheduleRecord(text="m1"),
)
FIELDS = {"number": 5, "text": "some text"}


def members(uuid, _key):
    return {keys.uuid: keys.identity() for keys in (SENDER, RECEIVER)}.get(uuid)


def make(terms=TERMS, keys=SENDER, **options):
    options = {"recipient": RECEIVER.identity(), "attachment": b"bytes", **options}
    return MessageCodec(keys).make(terms, "kind", "a.subject", NOW, FIELDS, **options)[0]


def open_(data, terms=TERMS, subject="a.subject", now=NOW, keys=RECEIVER, find=members, codec=None):
    return (codec or MessageCodec(keys)).open(data, terms, subject, now, find)


def reason_of(*arguments, **options):
    with pytest.raises(RemoteProtocolError) as refusal:
        open_(*arguments, **options)
    return refusal.value.reason


@pytest.mark.parametrize("protection", list(Protection))
def test_a_message_arrives(protection):
    terms = replace(TERMS, encrypts=protection is not Protection.NONE)
    data = make(terms, protection=protection)
    message = open_(data, terms)
    assert (message.kind, message.sender, message.fields, message.attachment) == ("kind", SENDER.uuid, FIELDS, b"bytes")
    assert message.text("text") == "some text"
    assert message.number("number") == 5
    assert (b"some text" in data) is (protection is Protection.NONE)
    for name, read in (("number", message.text), ("text", message.number), ("none", message.text)):
        with pytest.raises(RemoteProtocolError):
            read(name)


def test_protection_follows_the_terms():
    assert b"some text" not in make(recipient=None)
    assert b"some text" in make(replace(TERMS, encrypts=False), recipient=None)


def test_a_message_is_refused_for_what_is_wrong_with_it():
    data = make()
    assert reason_of(data, subject="another.subject") == "wrong_federation"
    assert reason_of(data, replace(TERMS, federation_id="b" * 16)) == "wrong_federation"
    assert reason_of(make(keys=OTHER)) == "unknown_sender"
    assert reason_of(make(keys=OTHER, shows_key=True)) == "unknown_sender"
    assert reason_of(data, find=lambda uuid, _: OTHER.identity()) == "bad_signature"
    assert reason_of(data, keys=OTHER) == "unknown_key"
    assert reason_of(data, now=NOW + 301) == "clock_skew"
    assert reason_of(data, now=NOW - 61) == "clock_skew"
    open_(data, now=NOW + 299)
    open_(data, now=NOW - 59)


def test_a_message_opens_once():
    codec, data = MessageCodec(RECEIVER), make()
    open_(data, codec=codec)
    assert reason_of(data, codec=codec) == "replayed"
    open_(make(), codec=codec)


def test_keys_of_another_epoch_do_not_open():
    terms = replace(TERMS, key_epoch=1, secret_key=Secret(encode_base64(bytes(15) + b"1")))
    data = make(recipient=None)
    assert reason_of(data, terms) == "unknown_key"
    assert reason_of(data, replace(terms, key_epoch=0)) == "unknown_key"
    open_(make(), terms)  # a sealed one needs no key of the federation


def test_clear_text_is_refused_where_all_is_encrypted():
    assert reason_of(make(replace(TERMS, encrypts=False), recipient=None)) == "unknown_key"


@settings(deadline=None)
@given(st.data())
def test_no_byte_can_be_changed(data):
    message = bytearray(make(protection=Protection.FEDERATION))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RemoteProtocolError):
        open_(bytes(message))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_other_bytes_are_no_message(data):
    for text in (data, b"PETF\1\0" + data, b"PETF\1\0" + struct.pack(">H", len(data)) + data + bytes(64)):
        assert reason_of(text) == "malformed_message"


def test_a_sealed_body_cannot_be_signed_by_somebody_else():
    data = make()
    head, body = data[: 8 + struct.unpack(">H", data[6:8])[0]], data[8 + struct.unpack(">H", data[6:8])[0] : -64]
    stolen = head.replace(SENDER.uuid.encode(), RECEIVER.uuid.encode()) + body
    stolen += RECEIVER.signing.sign(b"pet/v1/fed-message\0" + stolen)
    assert reason_of(stolen) == "malformed_message"


def terms_update(**changes):
    update = TermsUpdate(
        version=3,
        peers=(SENDER.identity("one"), RECEIVER.identity()),
        schedule=ScheduleRecord(text="h2", counter=4),
        contract=ContractRecord(lines=("COUNT(a) > 1",), counter=2),
        schema=None,
        key_epoch=1,
        secret_key=Secret(encode_base64(os.urandom(16))),
    )
    return replace(update, **changes)


def test_terms_come_back():
    update = terms_update()
    assert TermsUpdate.from_fields(update.to_fields(), ProjectKind.STATISTICS) == update
    assert update.secret_key.reveal() not in repr(update)


@pytest.mark.parametrize(
    "change",
    [
        {"version": -1},
        {"version": True},
        {"peers": {}},
        {"peers": [{}]},
        {"peers": ["x"]},
        {"schedule": ["s1", 0]},
        {"schedule": "m1"},
        {"contract": [["COUNT("], 0]},
        {"contract": [["COUNT(a) > 1"], "0"]},
        {"schema": "{}"},
        {"key_epoch": None},
        {"secret_key": "short"},
        {"secret_key": encode_base64(bytes(15))},
    ],
)
def test_bad_terms_are_refused(change):
    with pytest.raises(RemoteProtocolError):
        TermsUpdate.from_fields(terms_update().to_fields() | change, ProjectKind.STATISTICS)


@pytest.mark.parametrize(("layout", "named"), [("", 1), ('"layout":1,', 1), ('"layout":3,', 3)])
def test_a_schema_whose_statistics_another_version_lays_out_is_refused_by_name(layout, named):
    text = Schema((Feature(name="a"), Feature(name="b")), has_missing=True).to_json()
    fields = terms_update(schema=text).to_fields()
    assert TermsUpdate.from_fields(fields, ProjectKind.STATISTICS).schema == text
    fields["schema"] = text.replace('"layout":2,', layout)
    with pytest.raises(RemoteProtocolError, match=f"expected statistics of layout 2, got layout {named}, of another version"):
        TermsUpdate.from_fields(fields, ProjectKind.STATISTICS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"uuid": "x"}, "uuid: expected 32 lower-case hexadecimal digits"),
        ({"uuid": "a" * 31 + "\u0663"}, "uuid: expected 32 lower-case hexadecimal digits"),
        ({"uuid": None}, "uuid: expected text, got NoneType"),
        ({"signing_key": "AA"}, "signing_key: expected 32 bytes, got 1"),
        ({"encryption_key": "A" * 43}, "encryption_key: expected a point"),
        ({"label": "x" * 257}, "label: expected a name"),
        ({"label": 5}, "label: expected text, got int"),
    ],
)
def test_bad_identities_are_refused(change, problem):
    with pytest.raises(FederationValueError, match=problem):
        decode_identity(encode_identity(SENDER.identity("one")) | change)
    fields = terms_update().to_fields()
    fields["peers"][1] |= change
    with pytest.raises(RemoteProtocolError, match="terms: "):
        TermsUpdate.from_fields(fields, ProjectKind.STATISTICS)


def test_an_identity_of_a_release_without_names_is_read():
    fields = encode_identity(SENDER.identity("one"))
    assert decode_identity(fields) == SENDER.identity("one")
    del fields["label"]
    assert decode_identity(fields) == SENDER.identity()
