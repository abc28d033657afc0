"""From settings to the stores of a coordinator: where its rounds and its models are kept.

Redis and S3 are imported only where the settings ask for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from pet.coordinator.evidence_folder import FolderEvidenceStore
from pet.coordinator.leaf_folder import FolderLeafStore
from pet.coordinator.model_store import FolderModelStore, ModelStore
from pet.coordinator.setting_sections import S3Settings
from pet.coordinator.settings import Settings
from pet.coordinator.storage.base import Storage
from pet.coordinator.storage.sqlite import SqliteStorage

STATE_FOLDER_NAME: Final = "pet-state"
_MODELS_NAME: Final = "models"
_SPOOL_NAME: Final = "spool"
_LEAVES_NAME: Final = "leaves"
_EVIDENCE_NAME: Final = "evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What a coordinator keeps its state in.

    Attributes:
        storage: for rounds.
        model_store: for models.
        spool_folder: where large bodies wait; on the file system of the storage, where it has one.
        leaf_store: for leaves of updates of pet/1; None under xaynet's profile.
        evidence_store: for evidence of rounds of pet/1; None under xaynet's profile.
    """

    storage: Storage
    model_store: ModelStore
    spool_folder: Path | None = None
    leaf_store: FolderLeafStore | None = None
    evidence_store: FolderEvidenceStore | None = None

    @classmethod
    def open(cls, settings: Settings, folder: Path, *, is_fresh: bool = False) -> Self:
        """Open what the settings name; what they leave open is in a folder.

        Args:
            settings: `redis`, `s3`, `restore` and `service` count.
            folder: the state folder, made if it is needed.
            is_fresh: forget the rounds that are stored; so does `restore.enable = false`.

        Raises:
            StateError: what is stored is none of ours, or damaged.
            StorageError: a store cannot be used, or another coordinator uses it.
            MissingExtraError: Redis or S3 is asked for, and its package is not installed.
        """
        is_fresh = is_fresh or settings.restore.enable is False
        model_store = _open_model_store(settings, folder)
        storage = _open_storage(settings, folder, is_fresh=is_fresh)
        stores = cls(storage=storage, model_store=model_store, spool_folder=folder / _SPOOL_NAME)
        if not settings.pet.is_pet1:
            return stores
        try:
            return replace(
                stores,
                leaf_store=FolderLeafStore(folder / _LEAVES_NAME),
                evidence_store=FolderEvidenceStore(folder / _EVIDENCE_NAME),
            )
        except BaseException:
            stores.close()
            raise

    def close(self) -> None:
        """Close files and connections."""
        self.storage.close()
        if self.leaf_store is not None:
            self.leaf_store.close()


def _open_storage(settings: Settings, folder: Path, *, is_fresh: bool) -> Storage:
    if settings.redis.url is None:
        return SqliteStorage(folder, is_fresh=is_fresh)
    from pet.coordinator.storage.redis import RedisStorage

    return RedisStorage(settings.redis.url.reveal(), is_fresh=is_fresh, must_be_durable=settings.redis.require_durable)


def _open_model_store(settings: Settings, folder: Path) -> ModelStore:
    if settings.s3.region is None:
        return FolderModelStore(folder / _MODELS_NAME, settings.service.model_history)
    from pet.coordinator.s3_model_store import S3ModelStore

    return S3ModelStore(**s3_arguments(settings.s3), history=settings.service.model_history)


def s3_arguments(s3: S3Settings) -> dict[str, Any]:
    """Return which bucket the settings name, as arguments of `S3ModelStore`; they have a region."""
    region = s3.region or [""]
    return {
        "bucket": s3.buckets.global_models,
        "region": (region[0], region[1] if len(region) > 1 else None),
        "access_key": s3.access_key,
        "secret_access_key": s3.secret_access_key,
    }
