"""Invitations fed badly: wrong passwords and keys, changed bytes, headers that ask for too much."""

import json

import pytest

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import FederationValueError
from pet.federation.formats import compat, invitation
from pet.federation.formats.encoding import canonical_json, decode_base64url, encode_base64url
from pet.federation.formats.invitation import InvitationHeader
from pet.secret import Secret

PASSWORD = Secret("correct horse battery staple")
CONTENTS = {"fed_name": "übung", "fed_req_token": "x" * 43}
HEADER = InvitationHeader.new("k3v9q2m7t4x8c1zd", 1767225600)


@pytest.fixture(scope="module")
def sealed():
    return invitation.seal_with_password(CONTENTS, HEADER, PASSWORD)


def test_it_opens_with_the_password_only(sealed):
    assert invitation.open_with_password(f" {sealed}\n", PASSWORD) == (HEADER, CONTENTS)
    assert HEADER.expires_at - HEADER.issued_at == 7200
    with pytest.raises(FederationValueError, match="wrong password") as raised:
        invitation.open_with_password(sealed, Secret("correct horse battery stable"))
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None
    assert "horse" not in str(raised.value)


def test_the_form_of_a_password_does_not_matter():
    composed, decomposed = Secret("pässwörter-lang"), Secret("pa\u0308sswo\u0308rter-lang")
    text = invitation.seal_with_password(CONTENTS, HEADER, composed)
    assert invitation.open_with_password(text, decomposed)[1] == CONTENTS


def test_two_invitations_of_the_same_contents_differ(sealed):
    assert invitation.seal_with_password(CONTENTS, HEADER, PASSWORD) != sealed


def test_short_passwords_are_refused():
    with pytest.raises(FederationValueError, match="at least 12 characters, got 11"):
        invitation.seal_with_password(CONTENTS, HEADER, Secret("x" * 11))


def changed_header(sealed, **changes):
    prefix, header, rest = sealed.split(".")
    fields = json.loads(decode_base64url(header)) | changes
    return ".".join([prefix, encode_base64url(canonical_json(fields).encode()), rest])


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": HEADER.expires_at + 1},
        {"fid": "aaaaaaaaaaaaaaaa"},
        {"fid": "AAAAAAAAAAAAAAAA"},
        {"m": 19455},
        {"m": 1048577},
        {"m": 2**40},
        {"t": 0},
        {"t": 11},
        {"t": True},
        {"p": 2},
        {"v": 2},
        {"kdf": "argon2i"},
        {"aead": "none"},
        {"salt": "AAAA"},
        {"jti": 7},
        {"iat": -1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_changed_header_does_not_open(sealed, changes):
    with pytest.raises(FederationValueError, match="does not open"):
        invitation.open_with_password(changed_header(sealed, **changes), PASSWORD)


def test_changed_and_cut_texts_do_not_open(sealed):
    last = "A" if sealed[-1] != "A" else "B"
    for text in [sealed[:-1] + last, sealed[:-2], sealed + "A", sealed + "=", sealed.replace(".", ""), "", "PETINV1.", "x.y.z"]:
        with pytest.raises(FederationValueError, match="does not open"):
            invitation.open_with_password(text, PASSWORD)


def test_a_header_that_is_not_canonical_does_not_open(sealed):
    prefix, header, rest = sealed.split(".")
    spaced = encode_base64url(json.dumps(json.loads(decode_base64url(header))).encode())
    with pytest.raises(FederationValueError, match="does not open"):
        invitation.open_with_password(".".join([prefix, spaced, rest]), PASSWORD)


def test_invitations_have_a_largest_size():
    with pytest.raises(FederationValueError, match="at most 65536 characters"):
        invitation.seal_with_password({"contract": "x" * 65536}, HEADER, PASSWORD)
    with pytest.raises(FederationValueError, match="at most 65536 characters"):
        invitation.open_with_password("PETINV1." + "A" * 65536, PASSWORD)


def test_an_invitation_for_a_key():
    peer, admin = EncryptionKeyPair.generate(), SigningKeyPair.generate()
    text = invitation.seal_for_key(CONTENTS, HEADER, peer.public_key, admin)
    assert text.startswith("PETINV1K.")
    assert invitation.is_native(text)
    assert invitation.open_with_keys(text, peer, admin.public_key) == (HEADER, CONTENTS)
    start, sealed, signature = text.rsplit(".", 2)
    bad = [
        (text, EncryptionKeyPair.generate(), admin.public_key),
        (text, peer, SigningKeyPair.generate().public_key),
        (f"{start}.{sealed}A.{signature}", peer, admin.public_key),
        (f"{start}.{sealed}", peer, admin.public_key),
        ("", peer, admin.public_key),
    ]
    for arguments in bad:
        with pytest.raises(FederationValueError, match="does not open"):
            invitation.open_with_keys(*arguments)
    with pytest.raises(FederationValueError, match="public key of a peer"):
        invitation.seal_for_key(CONTENTS, HEADER, bytes(32), admin)


def test_the_prefix_decides(sealed):
    assert invitation.is_native(sealed)
    vendor = compat.encrypt_invitation(b'{"fed_name":"f"}', "passwd")
    assert not invitation.is_native(vendor)
    with pytest.raises(FederationValueError):
        invitation.open_with_password(vendor, PASSWORD)
    with pytest.raises(FederationValueError):
        invitation.open_compatible(sealed, Secret("passwd"))


@pytest.mark.parametrize("password", ["", "x" * 17, "ü" * 9])
def test_passwords_that_the_vendor_format_cannot_take(password):
    with pytest.raises(FederationValueError, match="1 to 16 bytes") as raised:
        compat.encrypt_invitation(b"{}", password)
    assert raised.value.key == "passwd"


def test_vendor_invitations_fed_badly():
    text = compat.encrypt_invitation(b'{"fed_name":"f"}', "passwd")
    for bad in [text[:-4], text + "=", "", "AAAA", compat.encrypt_invitation(b"[]", "passwd")]:
        with pytest.raises(FederationValueError, match="does not open"):
            invitation.open_compatible(bad, Secret("passwd"))
    for contents in [b'{"a":1}', b'{"a":"1","a":"2"}']:
        with pytest.raises(FederationValueError, match="does not open"):
            invitation.open_compatible(compat.encrypt_invitation(contents, "passwd"), Secret("passwd"))
    # The documented weakness: the padding is part of the password.
    assert invitation.open_compatible(text, Secret("passwd0")) == {"fed_name": "f"}
