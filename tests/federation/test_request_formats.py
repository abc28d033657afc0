"""Signatures, bodies, nonces and secrets: what they cover, and what they refuse."""

import dataclasses
import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import FederationValueError
from pet.federation.formats import compat, secure
from pet.federation.formats.encoding import decode_base64, decode_base64url, encode_base64, encode_base64url, parse_json_object
from pet.federation.formats.secure import SignedParts
from pet.federation.records import PeerKeys
from pet.secret import Secret
from pet.transports.nats_settings import NatsSettings

SECRET = bytes(range(16))
PARTS = SignedParts(
    method="POST",
    host="node.example:8443",
    path="/symetry/rest/c1/fedml/create",
    query="pid=a&persist=true",
    body=b"{}",
    timestamp=1767225600,
    nonce="AAECAwQFBgcICQoLDA0ODw",
    customer_id="c1",
)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"host": "other.example"},
        {"path": "/symetry/rest/c1/fedml/createJoin"},
        {"query": "pid=b&persist=true"},
        {"body": b"{} "},
        {"timestamp": 1767225601},
        {"nonce": "DwECAwQFBgcICQoLDA0ODw"},
        {"customer_id": "c2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_signature_covers_every_part(change):
    assert dataclasses.replace(PARTS, **change).signature(SECRET) != PARTS.signature(SECRET)
    assert PARTS.signature(bytes(16)) != PARTS.signature(SECRET)


def test_the_order_of_a_query_does_not_matter_and_its_writing_neither():
    other = dataclasses.replace(PARTS, host="NODE.example:8443", query="persist=true&pid=%61")
    assert other.signature(SECRET) == PARTS.signature(SECRET)
    assert "a=%20%2F~&b=" in dataclasses.replace(PARTS, query="b=&a=+%2f~").canonical_string()


@pytest.mark.parametrize(
    "header",
    ["", "Basic abc", "PET1-HMAC-SHA256", PARTS.authorization(SECRET) + ",", PARTS.authorization(SECRET)[:-1]],
    ids=["empty", "basic", "no parts", "left-over comma", "cut off"],
)
def test_headers_that_are_not_ours(header):
    assert secure.parse_authorization(header) is None


def test_an_encrypted_body_is_bound_to_its_request():
    envelope = json.loads(secure.encrypt_body(b'{"a":"b"}', SECRET, PARTS.body_context()))
    assert secure.is_encrypted_body(envelope)
    assert secure.decrypt_body(envelope, SECRET, PARTS.body_context()) == b'{"a":"b"}'
    other = dataclasses.replace(PARTS, path="/other").body_context()
    bad = [
        (envelope, SECRET, other),
        (envelope, bytes(16), PARTS.body_context()),
        (envelope | {"v": 2}, SECRET, PARTS.body_context()),
        (envelope | {"n": "AAAA"}, SECRET, PARTS.body_context()),
        (envelope | {"c": ""}, SECRET, PARTS.body_context()),
        (envelope | {"c": "*"}, SECRET, PARTS.body_context()),
        (envelope | {"c": 3}, SECRET, PARTS.body_context()),
        ({"a": "b"}, SECRET, PARTS.body_context()),
        ([], SECRET, PARTS.body_context()),
    ]
    for arguments in bad:
        with pytest.raises(FederationValueError, match=r"^Bad Request Body$") as raised:
            secure.decrypt_body(*arguments)
        assert raised.value.__context__ is None


def test_vendor_bodies_fed_badly_give_one_text():
    key = encode_base64(SECRET)
    good = compat.encrypt_body(b"{}", key)
    assert compat.decrypt_body(f"{good}\r\n ".encode(), key) == b"{}"
    for bad in [b"", b"\xff", good[:-1].encode(), f" {good}".encode(), b"AAAA", (good[:4] + "A" + good[5:]).encode()]:
        with pytest.raises(FederationValueError, match=r"^Bad Request Body$") as raised:
            compat.decrypt_body(bad, key)
        assert raised.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2014-07-31 08:01:07;1245", 1406793667),
        ("2014-07-31 08:01:07", 1406793667),
        ("2014-07-31 08:01:07;", None),
        ("2014-13-31 08:01:07;0", None),
        ("2014-7-31 08:01:07", None),
        ("yesterday", None),
        ("٢014-07-31 08:01:07", None),
    ],
)
def test_vendor_dates(text, seconds):
    assert compat.parse_date(text) == seconds
    if seconds is not None:
        assert compat.parse_date(compat.format_date(seconds)) == seconds


def test_a_body_that_is_no_text_can_still_be_signed():
    text = compat.string_to_sign(
        method="POST", secret_key=encode_base64(SECRET), date="d", customer_id="c", body=b"\xff", path="/p", query=""
    )
    assert compat.sign(text, encode_base64(SECRET))


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_base64_comes_back(data):
    assert decode_base64(encode_base64(data)) == data
    assert decode_base64url(encode_base64url(data)) == data


@pytest.mark.parametrize("text", ["A", "AB", "AAA=", "AA+/", "AA\n", "ÄÄÄÄ", "AA=="])
def test_only_canonical_base64url_is_read(text):
    with pytest.raises(FederationValueError):
        decode_base64url(text)


@pytest.mark.parametrize("text", ["A===", "AB==", "AA", "AA-_", "AAA=\n", "AAAA AAAA"])
def test_only_canonical_base64_is_read(text):
    with pytest.raises(FederationValueError):
        decode_base64(text)


@pytest.mark.parametrize("text", ["[]", "{", '{"a":NaN}', '{"a":1,"a":1}', "[" * 100000, b"\xff"])
def test_only_json_objects_are_read(text):
    assert parse_json_object(text) is None


def test_secrets_hide():
    secret = Secret("hush-hush")
    keys = PeerKeys.generate()
    access = NatsSettings(hosts=("nats://127.0.0.1:4222",), user="u", password=secret)
    for text in [repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s %r" % (secret, secret), repr(access), repr(keys)]:  # noqa: UP031
        assert "hush" not in text
        assert keys.signing.secret_key.hex() not in text
        assert repr(keys.signing.secret_key) not in text
    assert secret == Secret("hush-hush")
    assert secret != Secret("other")
    assert secret != "hush-hush"
    assert len({secret, Secret("hush-hush")}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(secret)
