"""What a coordinator signs, byte by byte, and what a participant that holds its key takes: pure functions, no wire."""

from __future__ import annotations

import hashlib
import struct

import pytest
from participant_driver import round_parameters

from pet.crypto import SigningKeyPair, verify
from pet.errors import ConfigError, CoordinatorKeyError, OtherRoundError
from pet.transports.in_process import InProcessTransport
from pet.transports.pinned import AnswerVerifier, parse_coordinator_key, pin
from pet.transports.signed_answers import AnswerSignature, AnswerSigner, read_in_round

KEY = SigningKeyPair.from_seed(bytes(range(32)))
FIRST, SECOND = (round_parameters("update", seed=seed).to_bytes() for seed in (1, 2))


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def take(verifier: AnswerVerifier, route: str, header: str | None, body: bytes | None, media_type: str = "") -> None:
    check = verifier.expect(route)
    for start in range(0, len(body or b""), 5):
        check.update(body[start : start + 5])
    check.finish(header, media_type, has_body=body is not None)


def in_round(parameters: bytes, signer: AnswerSigner) -> AnswerVerifier:
    verifier = AnswerVerifier(KEY.public_key)
    take(verifier, "parameters", signer.sign("parameters", parameters, digest(parameters)), parameters)
    return verifier


def test_every_signed_byte_is_as_documented():
    text = AnswerSigner(KEY, lambda: 1700.0).sign("model", FIRST, digest(b"body"), "application/x-npy")
    version, issued, round_digest, signature = text.split(" ")
    assert (version, issued, round_digest) == ("1", "1700000", digest(FIRST).hex())
    signed = b"pet coordinator answer 1\n" + struct.pack("<Q", 1_700_000) + digest(FIRST)
    signed += digest(b"model") + digest(b"application/x-npy") + b"\x01" + digest(b"body")
    assert verify(bytes.fromhex(signature), signed, KEY.public_key)


def test_only_the_same_question_body_form_and_media_type_are_taken():
    signer = AnswerSigner(KEY)
    sums, nothing = signer.sign("sums", FIRST, digest(b"body")), signer.sign("sums", FIRST, None)
    model = signer.sign("model", FIRST, digest(b"body"), "a/b")
    take(in_round(FIRST, signer), "sums", sums, b"body")
    take(in_round(FIRST, signer), "sums", nothing, None)
    take(in_round(FIRST, signer), "model", model, b"body", "a/b")
    for route, header, body, media_type in (
        ("sums", sums, b"bodY", ""),
        ("sums", sums, None, ""),
        ("sums", nothing, b"", ""),
        ("sums", nothing, bytes(32), ""),
        ("seeds/00", sums, b"body", ""),
        ("pet.v1.abcdefghij012345.sums", sums, b"body", ""),
        ("model", model, b"body", "a/c"),
        ("model", model, b"body", ""),
        ("sums", AnswerSigner(SigningKeyPair.generate()).sign("sums", FIRST, digest(b"body")), b"body", ""),
        ("sums", None, b"body", ""),
    ):
        with pytest.raises(CoordinatorKeyError, match=f"expected a signature.*{KEY.public_key.hex()}.*got (none|another)"):
            take(in_round(FIRST, signer), route, header, body, media_type)


def test_an_answer_of_another_round_is_refused():
    signer = AnswerSigner(KEY)
    verifier = in_round(FIRST, signer)
    later, earlier = (signer.sign("sums", parameters, None) for parameters in (SECOND, FIRST))
    with pytest.raises(OtherRoundError, match="which is newer"):
        take(verifier, "sums", later, None)
    take(verifier, "sums", earlier, None)
    verifier = in_round(SECOND, signer)
    with pytest.raises(OtherRoundError, match="which is older"):
        take(verifier, "sums", earlier, None)
    with pytest.raises(OtherRoundError, match="expected round parameters to be accepted before"):
        take(AnswerVerifier(KEY.public_key), "sums", earlier, None)
    take(AnswerVerifier(KEY.public_key, FIRST), "sums", earlier, None)  # a participant that was restored in its round


def test_parameters_of_an_older_round_are_refused_by_who_saw_a_newer_one():
    signer = AnswerSigner(KEY)
    old = signer.sign("parameters", FIRST, digest(FIRST))
    verifier = in_round(SECOND, signer)
    with pytest.raises(OtherRoundError, match="older round"):
        take(verifier, "parameters", old, FIRST)
    take(verifier, "sums", signer.sign("sums", SECOND, None), None)  # nothing has changed


def test_an_answer_that_was_overtaken_by_a_newer_one_takes_nothing_back():
    signer = AnswerSigner(KEY)
    verifier = AnswerVerifier(KEY.public_key)
    overtaken = verifier.expect("parameters")
    overtaken.update(FIRST)
    header = signer.sign("parameters", FIRST, digest(FIRST))
    take(verifier, "parameters", signer.sign("parameters", SECOND, digest(SECOND)), SECOND)
    overtaken.finish(header)
    take(verifier, "sums", signer.sign("sums", SECOND, None), None)


def test_the_clock_of_the_coordinator_may_go_back_while_it_runs():
    times = iter([1000.0, 500.0, 500.0])
    signer = AnswerSigner(KEY, lambda: next(times))
    issued = [AnswerSignature.parse(signer.sign("sums", parameters, None)).issued for parameters in (FIRST, SECOND, FIRST)]
    assert issued == [1_000_000, 1_000_001, 1_000_000]


def test_what_all_ask_for_is_signed_once():
    signer = AnswerSigner(KEY)
    body = b"sums"
    assert signer.sign_published("sums", FIRST, body) is signer.sign_published("sums", FIRST, body)
    assert signer.sign_published("sums", SECOND, body) != signer.sign_published("sums", FIRST, body)
    take(in_round(FIRST, signer), "sums", signer.sign_published("sums", FIRST, body), body)
    take(in_round(FIRST, signer), "sums", signer.sign_published("sums", FIRST, None), None)


def test_a_header_is_read_strictly():
    text = AnswerSigner(KEY).sign("sums", FIRST, None)
    assert AnswerSignature.parse(text).to_text() == text
    for bad in (
        "",
        text[:-1],
        text + " ",
        text + "0",
        "2" + text[1:],
        text.upper(),
        text.replace(" ", "  ", 1),
        f"{text}, {text}",
        text.replace("1 ", "1 0", 1),
        text[:2] + "9" * 16 + text[15:],
        text.replace("1 ", "1 \N{ARABIC-INDIC DIGIT ONE}", 1),
        "é" * 200,
    ):
        assert AnswerSignature.parse(bad) is None, bad


def test_a_key_is_bytes_or_their_text():
    import base64

    public = KEY.public_key
    for key in (public, public.hex(), f" {public.hex()}\n", base64.b64encode(public).decode()):
        assert parse_coordinator_key(key) == public
    for bad in (b"", public[:-1], public.hex()[:-1], "", "key", 7, None, bytearray(public)):
        with pytest.raises(ConfigError, match="coordinator key: expected a public key of 32 bytes"):
            parse_coordinator_key(bad)


def test_a_transport_without_signatures_cannot_be_pinned():
    with pytest.raises(ConfigError, match="expected a transport that carries signatures, got InProcessTransport"):
        pin(InProcessTransport(None), KEY.public_key, None, None)


def test_a_read_belongs_to_the_round_that_it_is_signed_for():
    class Turning:
        """A round ends in the middle of the first read."""

        def __init__(self) -> None:
            self.rounds = [FIRST, FIRST]

        def parameters(self) -> bytes:
            return self.rounds[0]

        def sums(self) -> bytes:
            found = b"of the first" if self.rounds[0] is FIRST else b"of the second"
            self.rounds = [SECOND]
            return found

    endpoint = Turning()
    assert read_in_round(endpoint, endpoint.sums) == (SECOND, b"of the second")
