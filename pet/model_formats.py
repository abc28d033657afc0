"""A model as bytes: NumPy's .npy, safetensors, and the bincode of exact fractions that xaynet's clients read.

Used by both ends of `GET /model` and by `pet model get`. Decoders are strict and never unpickle. No transport is known here.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from pet import kernels
from pet.buffers import Buffer
from pet.errors import MissingExtraError, ModelError, RemoteProtocolError

BINCODE: Final = "application/octet-stream"
NPY: Final = "application/x-npy"
SAFETENSORS: Final = "application/vnd.safetensors"

#: Name of the one tensor in a safetensors file.
TENSOR_NAME: Final = "model"

_COUNT_BYTES: Final = 8
_MIN_FRACTION_BYTES: Final = 18
_NPY_MAGIC: Final = b"\x93NUMPY\x01\x00"
#: Magic, version and the two bytes of the header's length.
_NPY_START_BYTES: Final = 10
#: Enough for a vector's header, whatever padding its writer prefers.
_MAX_NPY_HEADER_BYTES: Final = 4096
#: The header of a vector. numpy evaluates a header as a Python literal and warns about some that it repairs; here everything
#: but a plain one is refused, whatever filters of warnings are set.
_NPY_ENTRY: Final = rb" *'(descr|fortran_order|shape)' *: *('<[fiu][48]'|False|\( *(?:0|[1-9][0-9]{0,18}) *, *\)) *"
_NPY_HEADER: Final = re.compile(rb"\{(?:" + _NPY_ENTRY + rb"(?:,|(?=\})))* *\}[ \n]*")
_SAFETENSORS_NAMES: Final = {"<f4": "F32", "<f8": "F64", "<i4": "I32", "<i8": "I64", "<u4": "U32", "<u8": "U64"}
_DTYPES: Final = {np.dtype(name).str: np.dtype(name) for name in _SAFETENSORS_NAMES}


def npy_header(length: int, dtype: np.dtype[Any]) -> bytes:
    """Return what stands before the weights in a .npy file of one vector; the weights follow as little-endian bytes."""
    header = io.BytesIO()
    description = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": (length,)}
    npy_format.write_array_header_1_0(header, description)
    return header.getvalue()


def encode_npy(array: NDArray[Any]) -> bytes:
    """Return a vector as the bytes of a .npy file."""
    return npy_header(len(array), array.dtype) + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def decode_npy(data: Buffer) -> NDArray[Any]:
    """Read a .npy file that holds one vector of floats or integers of 4 or 8 bytes, little-endian.

    Returns:
        A view of the data; read-only where the data is.

    Raises:
        RemoteProtocolError: anything else (reason "malformed_model").
    """
    view = memoryview(data).cast("B")
    start = bytes(view[:_NPY_START_BYTES])
    if len(start) < _NPY_START_BYTES or not start.startswith(_NPY_MAGIC):
        raise _malformed("expected a .npy file of version 1.0")
    header_bytes = int.from_bytes(start[len(_NPY_MAGIC) :], "little")
    if header_bytes > min(_MAX_NPY_HEADER_BYTES, len(view) - _NPY_START_BYTES):
        raise _malformed(f"expected a .npy header of at most {_MAX_NPY_HEADER_BYTES} bytes, got {header_bytes}")
    weights = view[_NPY_START_BYTES + header_bytes :]
    length, dtype = _parse_npy_header(bytes(view[_NPY_START_BYTES : _NPY_START_BYTES + header_bytes]))
    if len(weights) != length * dtype.itemsize:
        raise _malformed(f"expected {length} weights of {dtype}, got {len(weights)} bytes")
    return np.frombuffer(weights, dtype=dtype)


def _parse_npy_header(header: bytes) -> tuple[int, np.dtype[Any]]:
    """Return length and dtype of the vector that a header describes; its keys may stand in any order, each once."""
    entries = dict(re.findall(_NPY_ENTRY, header)) if _NPY_HEADER.fullmatch(header) and header.count(b":") == 3 else {}
    description, order, shape = (entries.get(name, b"") for name in (b"descr", b"fortran_order", b"shape"))
    if not description.startswith(b"'") or order != b"False" or not shape.startswith(b"("):
        raise _malformed(f"expected the header of one vector of {', '.join(_DTYPES)}, got {header.rstrip()[:100]!r}")
    return int(shape.strip(b"(, )")), _DTYPES[description.strip(b"'").decode()]


def safetensors_header(length: int, dtype: np.dtype[Any]) -> bytes:
    """Return what stands before the weights in a safetensors file of one vector "model"; the weights follow little-endian."""
    tensor = {
        "dtype": _SAFETENSORS_NAMES[dtype.newbyteorder("<").str],
        "shape": [length],
        "data_offsets": [0, length * dtype.itemsize],
    }
    text = json.dumps({TENSOR_NAME: tensor}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the weights are aligned
    return len(text).to_bytes(8, "little") + text


def encode_safetensors(array: NDArray[Any]) -> bytes:
    """Return a vector as the bytes of a safetensors file with one tensor, "model".

    Raises:
        ModelError: a dtype that models do not have.
        MissingExtraError: the package safetensors is not installed.
    """
    weights = np.ascontiguousarray(array)
    if weights.dtype.newbyteorder("<").str not in _DTYPES:
        raise ModelError(f"model: expected floats or integers of 4 or 8 bytes, got {weights.dtype}")
    return bytes(_safetensors().save({TENSOR_NAME: weights}))


def decode_safetensors(data: Buffer) -> NDArray[Any]:
    """Read what `encode_safetensors` writes.

    Raises:
        RemoteProtocolError: anything else (reason "malformed_model").
        MissingExtraError: the package safetensors is not installed.
    """
    library = _safetensors()
    try:
        tensors = library.load(bytes(data))
    except Exception as error:  # the library has no common root of its errors
        raise _malformed(f"expected a safetensors file ({type(error).__name__})") from None
    if set(tensors) != {TENSOR_NAME}:
        raise _malformed(f"expected one tensor {TENSOR_NAME!r}, got {len(tensors)} others")
    array: NDArray[Any] = tensors[TENSOR_NAME]
    if array.ndim != 1 or array.dtype.str not in _DTYPES:
        raise _malformed(f"expected one vector of floats or integers, got {array.dtype} of shape {array.shape}")
    return array


def decode_bincode(data: Buffer, dtype: np.dtype[Any], max_length: int | None = None) -> NDArray[Any]:
    """Read the body of xaynet's `GET /model`: exact fractions (spec 5.6).

    Args:
        data: the whole body.
        dtype: float32, float64, int32 or int64; fractions are rounded to floats and truncated to integers.
        max_length: more weights than this are refused.

    Raises:
        RemoteProtocolError: the bytes are no such model (reason "malformed_model"), or a value is outside the type (reason
            "out_of_range").
        ModelError: another dtype.
    """
    view = memoryview(data).cast("B")
    if len(view) < _COUNT_BYTES:
        raise _malformed(f"expected at least {_COUNT_BYTES} bytes, got {len(view)}")
    length = int.from_bytes(view[:_COUNT_BYTES], "little")
    limit = (len(view) - _COUNT_BYTES) // _MIN_FRACTION_BYTES
    limit = limit if max_length is None else min(limit, max_length)
    if length > limit:
        raise _malformed(f"expected at most {limit} weights, got {length}")
    model, used = kernels.decode_fractions(np.frombuffer(view[_COUNT_BYTES:], dtype=np.uint8), length, dtype)
    if used != len(view) - _COUNT_BYTES:
        raise _malformed(f"expected {used + _COUNT_BYTES} bytes, got {len(view)}")
    return model


def decode_model(media_type: str, data: Buffer, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    """Read a global model in whichever of the three formats it came.

    Args:
        media_type: what the answer called it; anything unknown, or nothing, is read as bincode, as xaynet sends no type.
        data: the body.
        dtype: dtype of the round's models.
        length: number of weights of the round's models.

    Raises:
        RemoteProtocolError: malformed, or of another dtype or length (reasons "malformed_model", "out_of_range").
    """
    if media_type == NPY:
        model = decode_npy(data)
    elif media_type == SAFETENSORS:
        model = decode_safetensors(data)
    else:
        model = decode_bincode(data, dtype, length)
    if model.dtype != dtype or len(model) != length:
        raise _malformed(f"expected {length} weights of {dtype}, got {len(model)} of {model.dtype}")
    if dtype.kind == "f" and not np.isfinite(model).all():
        raise _malformed("expected finite weights, got NaN or infinities")
    return model


def _safetensors() -> Any:
    with MissingExtraError.naming("http"):
        import safetensors.numpy
    return safetensors.numpy


def _malformed(message: str) -> RemoteProtocolError:
    return RemoteProtocolError("malformed_model", f"global model: {message}")
