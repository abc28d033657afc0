"""Where the sums of a block of rows are computed: NumPy on the CPU, or torch on a GPU (`fed_local_type`).

A device knows arrays, and no statistic: statistics.py computes with what NumPy and torch spell alike, so there
is one formula for both. Always float64, for which a GPU has no shortened format (TF32 is one of float32). torch is imported
when the device is first used.

Source: docs/spec/federation.md 2.4 (`fed_local_type`).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from pet.errors import DeviceError, MissingExtraError
from pet.federation.records import LocalType
from pet.federation.statistics.schema import Schema

_LOGGER: Final = logging.getLogger(__name__)

#: Names the device of torch in place of the first GPU: `cpu` runs the same code without one, `cuda:1` takes the second.
FORCE_VARIABLE: Final = "PET_FORCE_DEVICE"
_DEVICE_NAME: Final = re.compile(r"cpu|cuda(:[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class SchemaArrays:
    """What every block of a schema is computed with, as arrays of one device.

    Attributes:
        schema: of which they are.
        centres: float64, one a feature.
        scales: float64, one a feature.
        continuous: places of the continuous features.
        binary: places of the binary features.
        pairs: the i and the j of each pair, in the order of the layout.
        edges: float64, inner edges of each feature's histogram; empty without one.
    """

    schema: Schema
    centres: Any
    scales: Any
    continuous: Any
    binary: Any
    pairs: tuple[Any, Any]
    edges: tuple[Any, ...]

    @classmethod
    def of(cls, schema: Schema, put: Callable[[NDArray[Any]], Any]) -> Self:
        """Return the arrays of a schema, each moved by `put`."""
        first, second = schema.pairs
        return cls(
            schema=schema,
            centres=put(schema.centres),
            scales=put(schema.scales),
            continuous=put(schema.continuous),
            binary=put(schema.binary),
            pairs=(put(first), put(second)),
            edges=tuple(put(np.array(feature.edges)) for feature in schema.features),
        )


class Device(Protocol):
    """Computes with arrays somewhere. All methods but `computing` are called inside of it."""

    def computing(self) -> Any:
        """Return a context that gives the namespace of array functions (numpy or torch), and names what fails as this device's.

        Raises:
            DeviceError: there is no such device, or it failed.
        """

    def put(self, values: NDArray[Any]) -> Any:
        """Return an array of the device with the same values."""

    def take(self, values: Any) -> NDArray[np.float64]:
        """Return values of the device as a NumPy array."""

    def arrays_of(self, schema: Schema) -> SchemaArrays:
        """Return the arrays of a schema on this device."""


class NumpyDevice:
    """The CPU, through NumPy."""

    @contextmanager
    def computing(self) -> Iterator[Any]:
        """Give NumPy."""
        yield np

    def put(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the array itself."""
        return values

    def take(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the array itself."""
        return values

    def arrays_of(self, schema: Schema) -> SchemaArrays:
        """Return the schema's own arrays."""
        return SchemaArrays.of(schema, self.put)


class TorchDevice:
    """A GPU that torch computes on with float64, or the device that PET_FORCE_DEVICE names. Thread-safe.

    One block of rows is there at a time, with what is computed from it: six to thirteen times its size.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._torch: Any = None
        self._place: Any = None
        self._arrays: SchemaArrays | None = None

    def open(self) -> None:
        """Import torch and compute one number on the device; does nothing the second time.

        Raises:
            DeviceError: names what is missing: torch, a build of it for GPUs, a driver, the GPU.
        """
        with self._lock:
            if self._torch is None:
                name, torch = _device_name(), _import_torch()
                with _naming_failures(name):
                    self._place = torch.device(name)
                    found = float(torch.ones(2, dtype=torch.float64, device=self._place).sum())
                if found != 2:
                    raise DeviceError(f"device {name}: expected 1 + 1 = 2 from it, got {found}")
                _LOGGER.info("sums of rows are computed by torch %s on %s", torch.__version__, self._place)
                self._torch = torch

    @contextmanager
    def computing(self) -> Iterator[Any]:
        """Give torch; the device is opened if it was not.

        Raises:
            DeviceError: it cannot be opened, or failed: out of memory, for example.
        """
        self.open()
        with _naming_failures(str(self._place)):
            yield self._torch

    def put(self, values: NDArray[Any]) -> Any:
        """Return a copy on the device."""
        return self._torch.tensor(np.ascontiguousarray(values), device=self._place)

    def take(self, values: Any) -> NDArray[np.float64]:
        """Return the values in the memory of this process."""
        array: NDArray[np.float64] = values.cpu().numpy()
        return array

    def arrays_of(self, schema: Schema) -> SchemaArrays:
        """Return the arrays of a schema on the device. They stay there until another schema's are asked for."""
        arrays = self._arrays
        if arrays is None or arrays.schema is not schema:
            self._arrays = arrays = SchemaArrays.of(schema, self.put)
        return arrays


def _import_torch() -> Any:
    try:
        with MissingExtraError.naming("gpu"):
            import torch
    except MissingExtraError as error:
        raise DeviceError(str(error)) from None
    except OSError as error:  # a library of it, or of CUDA, does not load
        raise DeviceError(f"torch: expected one that can be imported, got: {_first_line(error)}") from None
    return torch


def _device_name() -> str:
    name = os.environ.get(FORCE_VARIABLE, "") or "cuda"
    if _DEVICE_NAME.fullmatch(name) is None:
        raise DeviceError(f"{FORCE_VARIABLE}: expected cpu, cuda or cuda:NUMBER, got {name!r}")
    return name


@contextmanager
def _naming_failures(name: str) -> Iterator[None]:
    # Failures of a GPU are subclasses of RuntimeError; a build of torch without CUDA asserts that it had one.
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"device {name}: expected torch to compute on it, got: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


#: The device of statistics that name none.
NUMPY: Final = NumpyDevice()


def device_of(local_type: LocalType) -> Device:
    """Return the device of a project. One on a GPU is opened when it is first computed on."""
    return TorchDevice() if local_type is LocalType.GPU else NUMPY
