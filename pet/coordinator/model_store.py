"""Where global models are kept: the interface, a folder, and one that keeps the last model as long as the object lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

from pet.buffers import Buffer
from pet.coordinator.model_file import decode_model, encode_model, model_name
from pet.coordinator.round_model import RoundModel
from pet.errors import StateError, StorageError
from pet.files import make_private_folder, remove_unfinished, replace_file, shown_fault


class ModelStore(Protocol):
    """What a coordinator asks of a model store. Calls come one at a time, from any thread.

    Attributes:
        description: what and where it is, for people; without secrets.
    """

    description: str

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model; it survives the process when this returns. Keeping the same model again does no harm.

        Returns:
            What to load it by, ready for JSON; the coordinator stores it with its state.

        Raises:
            StorageError: it could not be kept; it may be tried again.
        """
        ...

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return a model that was kept.

        Raises:
            StateError: it is not there, is damaged, or is another one.
            StorageError: the store cannot be reached.
        """
        ...


class MemoryModelStore:
    """`ModelStore` in memory: it keeps the last model."""

    def __init__(self) -> None:
        self.description = "in memory"
        self._model: RoundModel | None = None

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model in place of the one before."""
        self._model = model
        return {"name": model.etag}

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return the last model."""
        if self._model is None or record != {"name": self._model.etag}:
            raise StateError(f"model store: expected model {record.get('name')!r}, got none of that name")
        return self._model


class FolderModelStore:
    """`ModelStore` in a folder: one file for each model, the last ones kept.

    Args:
        folder: made if it does not exist; only its owner can read it.
        history: how many models are kept, at least 1.

    Raises:
        StorageError: the folder cannot be used.
    """

    def __init__(self, folder: Path, history: int) -> None:
        self.description = str(folder)
        self._folder: Final = folder
        self._history: Final = history
        try:
            make_private_folder(folder)
        except OSError as error:
            raise StorageError(shown_fault(error, folder, "a folder to keep models in")) from None

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model; a file of its name is a whole model."""
        name = model_name(model)
        try:
            size_bytes = replace_file(self._folder / name, encode_model(model))
            self._forget_old(name)
        except OSError as error:
            raise StorageError(shown_fault(error, self._folder / name, "to keep the model")) from None
        return {"name": name, "bytes": size_bytes}

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return a model that was kept."""
        path = self._folder / str(record["name"])
        try:
            return check_model(record, path.read_bytes(), str(path))
        except FileNotFoundError:
            raise StateError(f"{path}: expected the last global model, got no file") from None
        except OSError as error:
            raise StorageError(shown_fault(error, path, "the last global model")) from None

    def _forget_old(self, latest: str) -> None:
        """Remove what is beyond the history, and what a crash left unfinished."""
        remove_unfinished(self._folder)
        others = [path for path in self._folder.glob("*.pet") if path.name != latest]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[self._history - 1 :]:
            path.unlink()


def check_model(record: dict[str, Any], data: Buffer, where: str) -> RoundModel:
    """Read a model and check that it is the one of a record.

    Raises:
        StateError: it is damaged, or another one.
    """
    if len(data) != record["bytes"]:
        raise StateError(f"{where}: expected a model of {record['bytes']} bytes, got {len(data)}")
    try:
        model = decode_model(data)
    except StateError as error:
        raise StateError(f"{where}: {error}") from None
    if model_name(model) != record["name"]:
        raise StateError(f"{where}: expected model {record['name']}, got {model_name(model)}")
    return model
