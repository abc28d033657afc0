"""A model store in S3, or in anything that speaks its protocol.

One object for each model, named as in xaynet and with a suffix: the bytes are our own (pet/coordinator/model_file.py). The
bucket has to exist. An upload that a crash cut off never becomes an object; the bucket's lifecycle rules clear its parts away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pet.coordinator.model_file import encode_model, model_name
from pet.coordinator.model_store import check_model
from pet.coordinator.round_model import RoundModel
from pet.errors import ConfigError, MissingExtraError, StateError, StorageError
from pet.secret import Secret
from pet.transports.http_options import normalise_url
from pet.urls import shown_url, split_credentials, without_credentials

with MissingExtraError.naming("s3"):
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

#: A round ends only when its model is stored, and tries again every second: there is no point in waiting longer within one try.
_RETRIES: Final = 2
_RETRY_TIMEOUT: Final = timedelta(seconds=10)
_NO_BUCKET: Final = "expected a bucket that exists, got none"
_NO_ANSWER: Final = "expected a server that answers, got none"
_DEFAULT_REGION: Final = "us-east-1"


class S3ModelStore:
    """`ModelStore` in a bucket: one object for each model, the last ones kept.

    Args:
        bucket: its name.
        region: its region, and where it is not Amazon's the URL of the endpoint.
        access_key: with `secret_access_key`; None for both leaves it to the environment, as AWS' own tools do.
        secret_access_key: see there.
        history: how many models are kept, at least 1.
        answer_seconds: give up an answer after this time, and do not ask again; None waits and retries.

    Raises:
        StorageError: the bucket cannot be reached, or does not exist.
    """

    def __init__(
        self,
        bucket: str,
        region: tuple[str, str | None],
        *,
        access_key: Secret | str | None = None,
        secret_access_key: Secret | str | None = None,
        history: int,
        answer_seconds: float | None = None,
    ) -> None:
        name, endpoint = region
        if endpoint is not None:
            endpoint = _checked_endpoint(endpoint)
        self.description = f"bucket {bucket} at {endpoint or name}"
        self._history: Final = history
        options: dict[str, Any] = {"region": name if endpoint is None or name else _DEFAULT_REGION}
        if endpoint is not None:
            # Few other stores have a host name for each bucket, and one on this machine has no certificate.
            options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        keys = {"access_key_id": access_key, "secret_access_key": secret_access_key}
        options |= {key: Secret.of(secret).reveal() for key, secret in keys.items() if secret is not None}
        client_options: ClientConfig = {"allow_http": endpoint is not None and endpoint.startswith("http://")}
        if answer_seconds is not None:
            patience = timedelta(seconds=answer_seconds)
            client_options |= {"timeout": patience, "connect_timeout": patience}
        with self._mapped_errors():
            self._store: Final = S3Store(
                bucket,
                client_options=client_options,
                retry_config={"max_retries": 0 if answer_seconds else _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
                **options,
            )
            next(iter(obstore.list(self._store)), None)

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model; its object appears when all of it has arrived."""
        name = model_name(model)
        size_bytes = 0

        def pieces() -> Iterator[bytes]:
            nonlocal size_bytes
            for piece in encode_model(model):
                size_bytes += len(piece)
                yield bytes(piece)

        with self._mapped_errors():
            obstore.put(self._store, name, pieces())
            self._forget_old(name)
        return {"name": name, "bytes": size_bytes}

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return a model that was kept."""
        where = f"{self.description}: {record['name']}"
        try:
            with self._mapped_errors():
                data = bytes(obstore.get(self._store, str(record["name"])).bytes())
        except FileNotFoundError:
            raise StateError(f"{where}: expected the last global model, got no object") from None
        return check_model(record, data, where)

    def _forget_old(self, latest: str) -> None:
        others = [found for page in obstore.list(self._store) for found in page]
        others = [found for found in others if found["path"].endswith(".pet") and found["path"] != latest]
        others.sort(key=lambda found: (found["last_modified"], found["path"]), reverse=True)
        for found in others[self._history - 1 :]:
            obstore.delete(self._store, found["path"])

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise
            raise StorageError(f"{self.description}: {_NO_BUCKET}") from None
        except (BaseError, OSError, ValueError) as error:
            said = without_credentials(str(error)).splitlines() or [type(error).__name__]
            what = _NO_BUCKET if "NoSuchBucket" in str(error) else said[0]
            if what.endswith("error sending request"):  # the library says no more
                what = _NO_ANSWER
            raise StorageError(f"{self.description}: {what}") from None


def _checked_endpoint(url: str) -> str:
    """Return the URL of an endpoint: the library would show credentials in it, and ends the process over a bad port.

    Raises:
        StorageError: it is no URL, or holds credentials.
    """
    try:
        endpoint, credentials = split_credentials(normalise_url(url, "s3.region"))
    except ConfigError as error:
        raise StorageError(str(error)) from None
    if credentials is not None:
        raise StorageError(
            f"s3.region: expected an endpoint without a user, whose place is s3.access_key and s3.secret_access_key,"
            f" got {shown_url(url)}"
        )
    return endpoint
