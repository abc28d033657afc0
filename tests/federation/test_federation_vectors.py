"""Every vector of federation_vectors.json, both directions."""

import hashlib
import hmac
import json

import pytest
from remembered import PASSWORD_COST
from vector_files import load_vectors

from pet.crypto import decrypt_authenticated, derive_password_key, encrypt_authenticated
from pet.federation.formats import compat, invitation
from pet.federation.formats.encoding import canonical_json, encode_base64
from pet.federation.formats.invitation import InvitationHeader
from pet.federation.formats.secure import SignedParts, derive_key, parse_authorization
from pet.secret import Secret

VECTORS = load_vectors("federation_vectors.json")


def named(kind):
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


def test_nothing_in_the_file_is_left_out():
    kinds = {"invitation", "body_encryption", "request_signature", "hmac", "modern_envelope", "modern_request_signature"}
    texts = {"_comment", "fixed_iv_base64", "fixed_iv_hex", "create_body_plaintext_used_above"}
    assert VECTORS.keys() == kinds | texts | {"deterministic_encryption_evidence"}


def test_the_fixed_vector_is_the_one_in_the_code():
    assert compat._FIXED_IV.hex() == VECTORS["fixed_iv_hex"]
    assert encode_base64(compat._FIXED_IV) == VECTORS["fixed_iv_base64"]


@named("invitation")
def test_documented_invitations(vector):
    plain = vector["plaintext_utf8"].encode()
    assert compat.encrypt_invitation(plain, vector["password"]) == vector["ciphertext_base64"]
    assert compat.decrypt_invitation(vector["ciphertext_base64"], vector["password"]) == plain
    assert compat._password_key(vector["password"]).hex() == vector["key_hex"]
    assert len(plain) == vector.get("plaintext_len", len(plain))


def test_the_older_names_become_ours():
    vector = VECTORS["invitation"][0]
    contents = invitation.open_compatible(vector["ciphertext_base64"], Secret("passwd"))
    assert contents["fed_name"] == "nh_test_doc"
    assert contents["fed_secret_key"] == "t6Zat/ZAJyYBtmVXATUDCQ=="
    assert not any(name.startswith("group_") for name in contents)


def test_an_invitation_that_is_encrypted_like_a_body_is_read_too():
    key = encode_base64(compat._password_key("fedml"))
    assert invitation.open_compatible(compat.encrypt_body(b'{"group_name":"f"}', key), Secret("fedml")) == {"fed_name": "f"}


@named("body_encryption")
def test_bodies(vector):
    assert compat.encrypt_body(vector["plaintext_utf8"].encode(), vector["key_base64"]) == vector["ciphertext_base64"]
    assert compat.decrypt_body(vector["ciphertext_base64"].encode(), vector["key_base64"]).decode() == vector["plaintext_utf8"]


def test_the_signed_create_body_is_the_documented_plain_text():
    vector = next(vector for vector in VECTORS["request_signature"] if vector["path"].endswith("/create"))
    plain = compat.decrypt_body(vector["body"].encode(), vector["secret_key_base64"]).decode()
    assert plain == VECTORS["create_body_plaintext_used_above"]
    assert compat.encrypt_body(plain.encode(), vector["secret_key_base64"]) == vector["body"]


@named("request_signature")
def test_request_signatures(vector):
    body, key = (vector["body"] or "").encode(), vector["secret_key_base64"]
    assert compat.content_md5(body) == vector["content_md5"]
    text = compat.string_to_sign(
        method=vector["method"],
        secret_key=key,
        date=vector["sym_date"],
        customer_id=vector["cid"],
        body=body,
        path=vector["path"],
        query=vector["query"] or "",
    )
    assert text == vector["string_to_sign"]
    assert compat.sign(text, key) == vector["authorization"]
    echoed = compat.redacted_string_to_sign(text, key)
    assert echoed == vector["string_to_sign_redacted"].replace("\n", "\\n")
    assert key not in echoed


@named("hmac")
def test_the_documented_hmac(vector):
    digest = hmac.new(vector["key_utf8"].encode(), vector["data"].encode(), hashlib.sha256).digest()
    assert encode_base64(digest) == vector["signature_base64"]


@named("modern_envelope")
def test_native_invitations(vector, monkeypatch):
    for name, asked_for in PASSWORD_COST.items():
        monkeypatch.setattr(invitation, name, asked_for)
    salt, nonce = bytes.fromhex(vector["salt_hex"]), bytes.fromhex(vector["nonce_hex"])
    key = derive_password_key(vector["password"].encode(), salt, passes=3, memory_kib=65536)
    assert key.hex() == vector["key_hex"]
    fields = json.loads(vector["header_json"])
    header = InvitationHeader.from_fields(fields)
    text = invitation.seal_with_password(
        json.loads(vector["plaintext"]), header, Secret(vector["password"]), salt=salt, nonce=nonce
    )
    assert text == vector["token"]
    assert text.startswith(vector["aad"])
    assert canonical_json(fields) == vector["header_json"]
    opened_header, contents = invitation.open_with_password(text, Secret(vector["password"]))
    assert opened_header == header
    assert contents == json.loads(vector["plaintext"])
    box = encrypt_authenticated(vector["plaintext"].encode(), vector["aad"].encode(), nonce, key)
    assert decrypt_authenticated(box, vector["aad"].encode(), nonce, key).decode() == vector["plaintext"]


@named("modern_request_signature")
def test_native_request_signatures(vector):
    lines = vector["canonical_string"].split("\n")
    parts = SignedParts(
        method=lines[1],
        host="Node.example:8443",
        path=lines[3],
        query=lines[4],
        body=vector["body"].encode(),
        timestamp=int(lines[6]),
        nonce=lines[7],
        customer_id=lines[8],
    )
    secret = compat.decode_base64(vector["secret_key_base64"])
    assert derive_key(secret, "pet/v1/rest-sign").hex() == vector["sign_key_hex"]
    assert parts.canonical_string() == vector["canonical_string"]
    assert parts.signature(secret) == vector["signature_base64url"]
    parsed = parse_authorization(parts.authorization(secret))
    assert parsed is not None
    assert (parsed.customer_id, parsed.timestamp, parsed.nonce) == ("c1", parts.timestamp, parts.nonce)
    assert parsed.signature == vector["signature_base64url"]
