"""A global model as bytes: three formats, strict decoders."""

import io
import random
import warnings

import numpy as np
import pytest

import pet
from pet import model_formats
from pet.model_formats import BINCODE, NPY, SAFETENSORS, decode_model

DTYPES = [np.dtype(name) for name in ("float32", "float64", "int32", "int64")]


def model(dtype: np.dtype, length: int = 5) -> np.ndarray:
    return (np.arange(length) - 2).astype(dtype)


def bincode(fractions: list[tuple[int, int]]) -> bytes:
    def integer(value: int) -> bytes:
        limbs = -(-abs(value).bit_length() // 32)
        sign = ((value > 0) - (value < 0)).to_bytes(1, "little", signed=True)
        return sign + limbs.to_bytes(8, "little") + abs(value).to_bytes(4 * limbs, "little")

    return len(fractions).to_bytes(8, "little") + b"".join(integer(a) + integer(b) for a, b in fractions)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [0, 1, 5])
def test_npy_is_what_numpy_reads_and_writes(dtype, length):
    array = model(dtype, length)
    encoded = model_formats.encode_npy(array)
    read = np.load(io.BytesIO(encoded), allow_pickle=False)
    assert read.dtype == dtype
    assert read.tolist() == array.tolist()
    written = io.BytesIO()
    np.save(written, array)
    assert written.getvalue() == encoded
    assert model_formats.decode_npy(encoded).tolist() == array.tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_safetensors(dtype):
    array = model(dtype)
    read = model_formats.decode_safetensors(model_formats.encode_safetensors(array))
    assert read.dtype == dtype
    assert read.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [0, 1, 5, 10**6])
def test_a_safetensors_header_and_the_weights_are_a_safetensors_file(dtype, length):
    array = model(dtype, length)
    header = model_formats.safetensors_header(length, dtype)
    assert len(header) % 8 == 0
    read = model_formats.decode_safetensors(header + array.tobytes())
    assert (read.dtype, read.tolist()) == (dtype, array.tolist())


def test_bincode_of_the_specification(backend):
    body = bytes.fromhex(
        "0300000000000000"
        "ff010000000000000003000000" "01010000000000000002000000"
        "000000000000000000" "01010000000000000001000000"
        "0102000000000000000000000000010000" "01010000000000000001000000"
    )  # fmt: skip
    assert body == bincode([(-3, 2), (0, 1), (2**40, 1)])
    assert model_formats.decode_bincode(body, np.dtype(np.float32)).tolist() == [-1.5, 0, 2.0**40]
    assert model_formats.decode_bincode(body, np.dtype(np.int64)).tolist() == [-1, 0, 2**40]


def test_unreduced_fractions_are_read(backend):
    assert model_formats.decode_bincode(bincode([(2, 4), (0, 7)]), np.dtype(np.float64)).tolist() == [0.5, 0]


def test_each_media_type_is_read():
    array = model(np.dtype(np.float32))
    bodies = {
        NPY: model_formats.encode_npy(array),
        SAFETENSORS: model_formats.encode_safetensors(array),
        BINCODE: bincode([(int(weight), 1) for weight in array]),
        "": bincode([(int(weight), 1) for weight in array]),
    }
    for media_type, body in bodies.items():
        assert decode_model(media_type, body, array.dtype, 5).tolist() == array.tolist()
        with pytest.raises(pet.RemoteProtocolError, match="expected"):
            decode_model(media_type, body, array.dtype, 4)


def test_models_of_another_type_or_not_finite_are_refused():
    with pytest.raises(pet.RemoteProtocolError, match="expected 5 weights of int32, got 5 of float32"):
        decode_model(NPY, model_formats.encode_npy(model(np.dtype(np.float32))), np.dtype(np.int32), 5)
    with pytest.raises(pet.RemoteProtocolError, match="finite"):
        decode_model(NPY, model_formats.encode_npy(np.array([np.nan])), np.dtype(np.float64), 1)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2)), np.zeros(2, dtype=np.float16), np.zeros(2, dtype=">f8"), np.array([1 + 2j]), np.array(3.0)],
    ids=["two dimensions", "half", "big-endian", "complex", "scalar"],
)
def test_npy_of_something_else_is_refused(array):
    written = io.BytesIO()
    np.save(written, array)
    with pytest.raises(pet.RemoteProtocolError) as caught:
        model_formats.decode_npy(written.getvalue())
    assert caught.value.reason == "malformed_model"


def npy(header, count=4):
    """Return a file of version 1.0 with any header, and as many weights of four bytes."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4 * count)


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4L,), }",  # numpy warns, and repairs it
        b"{'descr': '\\<f4', 'fortran_order': False, 'shape': (4,), }",  # Python warns of the escape
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4if 1else 4,), }",  # and of the number
        b"{'descr': 'a4', 'fortran_order': False, 'shape': (4,), }",  # numpy warns of the alias
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (0x4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
        b"{'descr': '<f4', 'fortran_order': True, 'shape': (4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'shape': (4,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'descr': '<f4'}",
        b"{'descr': False, 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': '<f4', }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), } 1",
        b"{'descr': '<f4' 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        b"{}",
        b"",
    ],
)
def test_npy_headers_are_read_alike_whatever_happens_to_warnings(header, action):
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(pet.RemoteProtocolError) as caught:
            model_formats.decode_npy(npy(header))
    assert caught.value.reason == "malformed_model"


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }     \n",  # numpy's own
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}",
        b"{'shape':(4,),'fortran_order':False,'descr':'<f4'}",  # readers must not depend on the order
        b"{ 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 4 , ) , }",
    ],
)
def test_npy_headers_of_other_writers_are_read(header):
    assert model_formats.decode_npy(npy(header)).tolist() == [0, 0, 0, 0]


def test_every_beginning_of_an_npy_file_is_refused():
    whole = model_formats.encode_npy(np.ones(2, dtype=np.float32))
    for length in range(len(whole)):
        with pytest.raises(pet.RemoteProtocolError):
            model_formats.decode_npy(whole[:length])


def test_npy_never_unpickles():
    written = io.BytesIO()
    np.save(written, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(pet.RemoteProtocolError):
        model_formats.decode_npy(written.getvalue())


def test_safetensors_of_something_else_is_refused():
    from safetensors.numpy import save

    for tensors in ({"other": np.zeros(2)}, {"model": np.zeros((2, 2))}, {"model": np.zeros(2), "more": np.zeros(1)}):
        with pytest.raises(pet.RemoteProtocolError):
            model_formats.decode_safetensors(save(tensors))


ENCODED = {
    NPY: model_formats.encode_npy(model(np.dtype(np.float32))),
    SAFETENSORS: model_formats.encode_safetensors(model(np.dtype(np.float32))),
    BINCODE: bincode([(-3, 2), (0, 1), (2**40, 3**30), (5, 1), (7, 1)]),
}


@pytest.mark.parametrize("media_type", ENCODED)
def test_every_truncation_and_left_over_bytes_are_refused(media_type):
    body = ENCODED[media_type]
    for damaged in [*(body[:end] for end in range(len(body))), body + b"\0"]:
        with pytest.raises(pet.RemoteProtocolError):
            decode_model(media_type, damaged, np.dtype(np.float32), 5)


@pytest.mark.parametrize("media_type", ENCODED)
def test_mutations_never_raise_anything_else(media_type):
    generator = random.Random(7)
    for _ in range(20_000):
        body = bytearray(ENCODED[media_type])
        for _ in range(generator.randint(1, 3)):
            body[generator.randrange(len(body))] = generator.randrange(256)
        try:
            decode_model(media_type, bytes(body), np.dtype(np.float32), 5)
        except pet.RemoteProtocolError:
            continue


def test_a_count_beyond_the_body_allocates_nothing():
    with pytest.raises(pet.RemoteProtocolError, match="at most 2 weights, got 18446744073709551615"):
        model_formats.decode_bincode(b"\xff" * 8 + bytes(36), np.dtype(np.float32))
