"""Keys, signatures, sealed boxes, hashes and eligibility: the only file that knows which primitives there are.

Ed25519 signs, an X25519 sealed box encrypts, SHA-256 hashes; federations also use Argon2id and XChaCha20-Poly1305. All of it is
libsodium, through PyNaCl. Large buffers go to the compiled module of PyNaCl directly: its public functions return new bytes
objects, which for a message of 150 MB is a copy per step. Those calls release the GIL; the caller must leave the buffer
alone meanwhile.

One exception: a large message is signed by OpenSSL where `cryptography` is installed, whose SHA-512 is twice as fast. There is
one right signature for a key and a message, so nobody can tell which of the two made it. Verifying stays libsodium's: the two
disagree about what hostile keys and signatures are worth.

The group of Ed25519 itself, points and scalars, is pet/edwards.py.

This file must never know a message, a mask or a phase.

Source: docs/spec/pet.md 1.1, 1.5, 1.7; docs/spec/federation.md 4.1, 4.2.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import nacl.bindings
import nacl.exceptions
import nacl.pwhash.argon2id
from nacl._sodium import ffi, lib

from pet.buffers import Buffer
from pet.errors import CryptoError
from pet.secret import hidden

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_KEY_BYTES: Final[int] = nacl.bindings.crypto_sign_PUBLICKEYBYTES
SIGNATURE_BYTES: Final[int] = nacl.bindings.crypto_sign_BYTES
#: What a sealed box is longer than its content: an ephemeral public key and an authentication tag.
SEAL_BYTES: Final[int] = nacl.bindings.crypto_box_SEALBYTES
KEY_SEED_BYTES: Final = 32
ROUND_SEED_BYTES: Final = 32

AEAD_KEY_BYTES: Final[int] = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
AEAD_NONCE_BYTES: Final[int] = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
AEAD_TAG_BYTES: Final[int] = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
PASSWORD_SALT_BYTES: Final = nacl.pwhash.argon2id.SALTBYTES

SUM_TASK: Final = b"sum"
UPDATE_TASK: Final = b"update"

_MAX_DIGEST: Final = 2**256 - 1
#: From this number of bytes on OpenSSL signs, if it is there: 20 ms to load it, and 6 ms less for each 3 MB.
_LARGE_BYTES: Final = 2**20
#: X25519 clamps a scalar to a multiple of 8, the largest order of a low-order point: one scalar tells as well as another.
_ANY_SCALAR: Final = bytes(32)


@dataclass(frozen=True, slots=True, eq=False)
class SigningKeyPair:
    """The long-lived Ed25519 identity of a participant.

    Attributes:
        public_key: 32 bytes.
        secret_key: 64 bytes, the seed followed by the public key; hidden in repr.
    """

    public_key: bytes
    secret_key: bytes = hidden()

    def __post_init__(self) -> None:
        _require_size("public signing key", self.public_key, PUBLIC_KEY_BYTES)
        _require_size("secret signing key", self.secret_key, nacl.bindings.crypto_sign_SECRETKEYBYTES)
        if self.secret_key[KEY_SEED_BYTES:] != self.public_key:
            raise CryptoError("signing key pair: the secret key belongs to another public key")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKeyPair) and hmac.compare_digest(self.secret_key, other.secret_key)

    def __hash__(self) -> int:
        return hash(self.public_key)

    @classmethod
    def generate(cls) -> SigningKeyPair:
        """Draw a key pair from the operating system's randomness."""
        return cls(*nacl.bindings.crypto_sign_keypair())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKeyPair:
        """Derive the key pair of a 32-byte seed.

        Raises:
            CryptoError: the seed has another size.
        """
        _require_size("seed of a signing key pair", seed, KEY_SEED_BYTES)
        return cls(*nacl.bindings.crypto_sign_seed_keypair(seed))

    def sign(self, data: Buffer) -> bytes:
        """Sign; the result is the 64-byte signature alone. Copies the data: for large ones there is `sign_in_place`."""
        signed = bytearray(SIGNATURE_BYTES) + data
        sign_in_place(signed, self)
        return bytes(signed[:SIGNATURE_BYTES])


@dataclass(frozen=True, slots=True, eq=False)
class EncryptionKeyPair:
    """An X25519 key pair that lives for one round: the coordinator's, or the ephemeral one of a sum participant.

    Attributes:
        public_key: 32 bytes.
        secret_key: 32 bytes; hidden in repr.
    """

    public_key: bytes
    secret_key: bytes = hidden()

    def __post_init__(self) -> None:
        _require_size("public encryption key", self.public_key, PUBLIC_KEY_BYTES)
        _require_size("secret encryption key", self.secret_key, nacl.bindings.crypto_box_SECRETKEYBYTES)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, EncryptionKeyPair)
            and self.public_key == other.public_key
            and hmac.compare_digest(self.secret_key, other.secret_key)
        )

    def __hash__(self) -> int:
        return hash(self.public_key)

    @classmethod
    def generate(cls) -> EncryptionKeyPair:
        """Draw a key pair from the operating system's randomness."""
        return cls(*nacl.bindings.crypto_box_keypair())

    @classmethod
    def from_seed(cls, seed: bytes) -> EncryptionKeyPair:
        """Derive the key pair of a 32-byte seed; the secret key is the first half of the seed's SHA-512.

        Raises:
            CryptoError: the seed has another size.
        """
        _require_size("seed of an encryption key pair", seed, KEY_SEED_BYTES)
        return cls(*nacl.bindings.crypto_box_seed_keypair(seed))

    @classmethod
    def from_secret_key(cls, secret_key: bytes) -> EncryptionKeyPair:
        """Compute the public key that belongs to a secret key.

        Raises:
            CryptoError: the secret key is not of 32 bytes.
        """
        _require_size("secret encryption key", secret_key, nacl.bindings.crypto_box_SECRETKEYBYTES)
        return cls(nacl.bindings.crypto_scalarmult_base(secret_key), secret_key)


def sign_in_place(signed: bytearray | memoryview, key: SigningKeyPair) -> None:
    """Overwrite the first 64 bytes of a writable buffer with the signature of all the rest. Copies nothing.

    Raises:
        CryptoError: the buffer has no room for a signature.
    """
    with _writable(signed) as pointer:
        if len(pointer) < SIGNATURE_BYTES:
            raise CryptoError(f"buffer to sign in: expected at least {SIGNATURE_BYTES} bytes, got {len(pointer)}")
        if len(pointer) >= _LARGE_BYTES and (openssl_key := _openssl_key(key)) is not None:
            with memoryview(signed).cast("B") as view, view[SIGNATURE_BYTES:] as content:
                view[:SIGNATURE_BYTES] = openssl_key.sign(content)
            return
        lib.crypto_sign(pointer, ffi.NULL, pointer + SIGNATURE_BYTES, len(pointer) - SIGNATURE_BYTES, key.secret_key)


def _openssl_key(key: SigningKeyPair) -> Ed25519PrivateKey | None:
    """Return the key as OpenSSL's; None without `cryptography`, or where OpenSSL is built without Ed25519."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        return None
    try:
        return Ed25519PrivateKey.from_private_bytes(key.secret_key[:KEY_SEED_BYTES])
    except UnsupportedAlgorithm:
        return None


def verify(signature: bytes, data: Buffer, public_key: bytes) -> bool:
    """Return whether a detached signature is valid. Copies the data: for large ones there is `verify_signed`.

    Raises:
        CryptoError: the signature or the key has another size than its kind.
    """
    _require_size("signature", signature, SIGNATURE_BYTES)
    return verify_signed(signature + bytes(data), public_key)


def verify_signed(signed: Buffer, public_key: bytes) -> bool:
    """Return whether the first 64 bytes of a buffer are a valid signature of all the rest. Copies nothing.

    A buffer too short for a signature is not valid.

    Raises:
        CryptoError: the key is not of 32 bytes.
    """
    _require_size("public signing key", public_key, PUBLIC_KEY_BYTES)
    # PyNaCl leaves out the detached verification; with no place for the message, "open" is just that.
    with _readable(signed) as pointer:
        return bool(lib.crypto_sign_open(ffi.NULL, ffi.NULL, pointer, len(pointer), public_key) == 0)


def seal(data: Buffer, public_key: bytes) -> bytes:
    """Encrypt for the holder of a key so that nobody learns who encrypted; 48 bytes longer than the data.

    Raises:
        CryptoError: the key is of low order (no secret could be shared with it), or not of 32 bytes.
    """
    box = bytearray(SEAL_BYTES) + data
    seal_in_place(box, public_key)
    return bytes(box)


def seal_in_place(box: bytearray | memoryview, public_key: bytes) -> None:
    """Turn a writable buffer, whose plain text begins at byte 48, into a sealed box. Copies nothing.

    Raises:
        CryptoError: as in `seal`, or the buffer is shorter than 48 bytes. Its content is undefined then.
    """
    _require_size("public encryption key", public_key, PUBLIC_KEY_BYTES)
    with _writable(box) as pointer:
        if len(pointer) < SEAL_BYTES:
            raise CryptoError(f"buffer to seal in: expected at least {SEAL_BYTES} bytes, got {len(pointer)}")
        if lib.crypto_box_seal(pointer, pointer + SEAL_BYTES, len(pointer) - SEAL_BYTES, public_key) != 0:
            raise CryptoError(f"cannot seal: the public encryption key {public_key.hex()} is of low order")


def open_sealed(box: Buffer, keys: EncryptionKeyPair) -> bytes:
    """Decrypt a sealed box.

    Raises:
        CryptoError: the box is shorter than 48 bytes, damaged, or sealed for another key.
    """
    return bytes(open_sealed_in_place(bytearray(box), keys))


def open_sealed_in_place(box: bytearray | memoryview, keys: EncryptionKeyPair) -> memoryview:
    """Decrypt a sealed box within its own, writable buffer. Copies nothing.

    Returns:
        A view of the plain text: the buffer from byte 48 on.

    Raises:
        CryptoError: as in `open_sealed`. The content of the buffer is undefined then.
    """
    with _writable(box) as pointer:
        if lib.crypto_box_seal_open(pointer + SEAL_BYTES, pointer, len(pointer), keys.public_key, keys.secret_key) != 0:
            raise CryptoError(f"a box of {len(pointer)} bytes does not open: too short, damaged, or sealed for another key")
    return memoryview(box).cast("B")[SEAL_BYTES:]


def encrypt_authenticated(data: bytes, associated_data: bytes, nonce: bytes, key: bytes) -> bytes:
    """Encrypt with XChaCha20-Poly1305; 16 bytes longer than the data. A nonce (24 random bytes) serves once per key.

    Raises:
        CryptoError: nonce or key has another size.
    """
    _require_size("nonce", nonce, AEAD_NONCE_BYTES)
    _require_size("encryption key", key, AEAD_KEY_BYTES)
    return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(data, associated_data, nonce, key)


def decrypt_authenticated(box: bytes, associated_data: bytes, nonce: bytes, key: bytes) -> bytes:
    """Decrypt what `encrypt_authenticated` made.

    Raises:
        CryptoError: the key is another one, or box, associated data or nonce were changed; or one has a size that cannot be.
    """
    _require_size("nonce", nonce, AEAD_NONCE_BYTES)
    _require_size("encryption key", key, AEAD_KEY_BYTES)
    # Raised outside of the handler: PyNaCl's error would only repeat it.
    if (data := _decrypt_or_none(box, associated_data, nonce, key)) is None:
        raise CryptoError(f"an authenticated box of {len(box)} bytes does not open: another key, or it was changed")
    return data


def _decrypt_or_none(box: bytes, associated_data: bytes, nonce: bytes, key: bytes) -> bytes | None:
    if len(box) < AEAD_TAG_BYTES:
        return None
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(box, associated_data, nonce, key)
    except nacl.exceptions.CryptoError:
        return None


def derive_password_key(password: bytes, salt: bytes, *, passes: int, memory_kib: int) -> bytes:
    """Derive a 32-byte key from a password with Argon2id v1.3, one lane.

    Takes 0.13 s with 3 passes over 64 MiB on the machine of docs/spec/federation.md 5.6. The caller bounds both numbers.

    Raises:
        CryptoError: the salt is not of 16 bytes.
    """
    _require_size("password salt", salt, PASSWORD_SALT_BYTES)
    return nacl.pwhash.argon2id.kdf(AEAD_KEY_BYTES, password, salt, opslimit=passes, memlimit=memory_kib * 1024)


def is_low_order(public_key: bytes) -> bool:
    """Return whether an X25519 public key is of low order, which makes every secret shared with it the same.

    Raises:
        CryptoError: the key is not of 32 bytes.
    """
    _require_size("public encryption key", public_key, PUBLIC_KEY_BYTES)
    # libsodium refuses exactly these keys; asking it needs no list of them and takes as long for every key.
    return bool(lib.crypto_scalarmult(ffi.new("unsigned char[]", PUBLIC_KEY_BYTES), _ANY_SCALAR, public_key) != 0)


def decode_public_key(text: str) -> bytes | None:
    """Read a public key of 32 bytes as people write it, in hexadecimal or base64; None if it is something else."""
    try:
        key = bytes.fromhex(text) if len(text) == 2 * PUBLIC_KEY_BYTES else base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return key if len(key) == PUBLIC_KEY_BYTES else None


def hash_sha256(data: Buffer) -> bytes:
    """Return the SHA-256 of a buffer, 32 bytes."""
    return hashlib.sha256(data).digest()


def is_eligible(signature: bytes, threshold: float) -> bool:
    """Return whether a task signature is among the share `threshold` of all signatures (spec 1.7).

    The SHA-256 of the signature, as a little-endian number over 2^256 - 1, is compared with the exact value of the threshold:
    below 0 nobody is eligible, from 1 on everybody.

    Raises:
        CryptoError: the threshold is NaN, or the signature is not of 64 bytes.
    """
    _require_size("task signature", signature, SIGNATURE_BYTES)
    if math.isnan(threshold):
        raise CryptoError("threshold of eligibility: expected a number, got NaN")
    if threshold < 0 or threshold > 1:  # beside saving work, this keeps infinities from the fraction below
        return threshold > 1
    return int.from_bytes(hashlib.sha256(signature).digest(), "little") <= _largest_eligible(threshold)


@functools.lru_cache(64)
def _largest_eligible(threshold: float) -> int:
    """Return the largest number whose share of `_MAX_DIGEST` is not above a threshold from 0 to 1."""
    numerator, denominator = threshold.as_integer_ratio()
    return numerator * _MAX_DIGEST // denominator


def sign_task(key: SigningKeyPair, round_seed: bytes, task: bytes) -> bytes:
    """Sign a round's seed for one task, SUM_TASK or UPDATE_TASK; who may take it follows from the signature (spec 1.7)."""
    return key.sign(round_seed + task)


def verify_task(signature: bytes, public_key: bytes, round_seed: bytes, task: bytes) -> bool:
    """Return whether a task signature is that of this participant for this round and task (spec 1.7).

    Raises:
        CryptoError: the signature or the key has another size than its kind.
    """
    return verify(signature, round_seed + task, public_key)


def derive_round_seed(
    keys: EncryptionKeyPair, previous_seed: bytes, sum_probability: float, update_probability: float
) -> bytes:
    """Derive the seed of a round from the coordinator's new key pair and the seed before (spec 1.5).

    Returns:
        32 bytes that nobody without the secret key can foresee.

    Raises:
        CryptoError: the previous seed is not of 32 bytes.
    """
    _require_size("round seed", previous_seed, ROUND_SEED_BYTES)
    # The X25519 secret key serves as the seed of an Ed25519 pair here, as it does in the reference.
    key = SigningKeyPair.from_seed(keys.secret_key)
    return hash_sha256(key.sign(previous_seed + struct.pack("<dd", sum_probability, update_probability)))


def _require_size(what: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise CryptoError(f"{what}: expected {size} bytes, got {len(value)}")


# Both are for a `with` statement, which ends the loan of the buffer on every way out. An error's traceback would keep it else:
# the owner could not release its view, and CPython before 3.12.7 crashes when it collects a cycle with a view that is lent.


def _readable(buffer: Buffer) -> Any:
    return ffi.from_buffer("unsigned char[]", buffer)


def _writable(buffer: bytearray | memoryview) -> Any:
    return ffi.from_buffer("unsigned char[]", buffer, require_writable=True)
