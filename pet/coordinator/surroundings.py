"""What settings name outside of themselves: files, and servers that must answer. Checked before anything is opened or written.

All of it is checked in one run and at the same time, each server with a short time-out, so that one start shows
everything that is wrong. Values are checked before (pet/coordinator/settings.py).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from pet.coordinator.key_file import read_key_file
from pet.coordinator.pet1_settings import find_enrolment_faults
from pet.coordinator.setting_faults import Fault
from pet.coordinator.setting_names import SETTINGS, setting_values
from pet.coordinator.setting_sections import ApiSettings, NatsSection, RedisSettings, S3Settings, SettingsTree
from pet.coordinator.stores import s3_arguments
from pet.coordinator.worker_threads import start_threads
from pet.errors import ConfigError, MissingExtraError, PetError
from pet.transports.guarded_tls import ServingContext, serving_context

#: What the coordinator calls itself at a broker: "_INBOX_coordinator.>" is its inbox.
NATS_NAME: Final = "coordinator"
#: A server that takes longer to say that it is there would hold up every message too.
_ANSWER_SECONDS: Final = 2.0
#: A broker wants a connection, credentials and perhaps TLS first.
_BROKER_SECONDS: Final = 5.0
#: Looking up a name has no time-out of its own.
_PATIENCE_SECONDS: Final = 8.0
_WITHOUT_TLS: Final = "remove api.tls_certificate, api.tls_key and api.tls_client_auth: then it speaks plain HTTP"
#: Full name of a file's setting -> what to do without the file.
_WITHOUT_FILE: Final = {
    "api.tls_certificate": _WITHOUT_TLS,
    "api.tls_key": _WITHOUT_TLS,
    "api.tls_client_auth": "remove the setting: then clients need no certificate",
    "service.coordinator_key": "remove the setting: then answers are not signed",
    "service.allowed_participants": "remove the setting: then anybody may take part",
    "pet.profile.enrolment": 'set pet.profile.name to "xaynet" and remove the setting: then anybody may take part',
    "nats.ca_file": "remove the setting: then public authorities are trusted",
}


def find_outer_faults(settings: SettingsTree) -> dict[str, Fault]:
    """Return which files cannot be used and which servers do not answer: full name of the setting -> fault with its remedy.

    Raises:
        ThreadStartError: the system does not start the threads that ask them.
    """
    found = find_file_faults(settings)
    checks: dict[str, Callable[[], str | None]] = {
        "redis.url": lambda: _fault_of_redis(settings.redis),
        "s3.region": lambda: _fault_of_s3(settings.s3),
    }
    if "nats.ca_file" not in found:
        checks["nats.hosts"] = lambda: _fault_of_broker(settings.nats, is_pet1=settings.pet.is_pet1)
    pool = start_threads(len(checks), "pet-check")
    try:
        answers = {name: pool.submit(check) for name, check in checks.items()}
        for name, answer in answers.items():
            try:
                sentence = answer.result(_PATIENCE_SECONDS)
            except TimeoutError:
                sentence = (
                    f"expected an answer within {_PATIENCE_SECONDS:g} s, got none; correct the address, or start the server"
                )
            if sentence is not None:
                found[name] = Fault(sentence=sentence)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def find_file_faults(settings: SettingsTree) -> dict[str, Fault]:
    """Return which files cannot be read, and which TLS files do not belong together."""
    found = {}
    for name, path in setting_values(settings):
        if SETTINGS[name].is_file and path is not None and not (path.is_file() and os.access(path, os.R_OK)):
            found[name] = Fault(sentence=f"expected a readable file, got {str(path)!r}; provide it, or {_WITHOUT_FILE[name]}")
    key_file = settings.service.coordinator_key
    if key_file is not None and "service.coordinator_key" not in found:
        try:
            read_key_file(key_file)
        except ConfigError as error:
            found["service.coordinator_key"] = Fault(sentence=str(error))
    if "pet.profile.enrolment" not in found:
        found |= {name: Fault(sentence=sentence) for name, sentence in find_enrolment_faults(settings)}
    if not any(name.startswith("api.") for name in found):
        found.update(_find_tls_faults(settings.api))
    return found


def tls_context(api: ApiSettings) -> ServingContext | None:
    """Return how to serve https; None for plain HTTP.

    Raises:
        ConfigError: a file cannot be used.
    """
    if api.tls_certificate is None or api.tls_key is None:
        return None
    return serving_context(api.tls_certificate, api.tls_key, api.tls_client_auth)


def _find_tls_faults(api: ApiSettings) -> Iterator[tuple[str, Fault]]:
    for name, without in (("api.tls_certificate", {"tls_client_auth": None}), ("api.tls_client_auth", {})):
        try:
            tls_context(api.model_copy(update=without))
        except ConfigError as error:
            what = str(error).removeprefix("TLS: ")
            yield name, Fault(sentence=f"{what}; correct it, or {_WITHOUT_FILE[name]}")
            return


def _fault_of_redis(redis: RedisSettings) -> str | None:
    if redis.url is None:
        return None
    try:
        from pet.coordinator.storage.redis import check_server

        check_server(redis.url.reveal(), _ANSWER_SECONDS, must_be_durable=redis.require_durable)
    except PetError as error:
        return _with_remedy(error, "redis.url", "redis", "rounds are kept in pet-state/")
    return None


def _fault_of_s3(s3: S3Settings) -> str | None:
    if s3.region is None:
        return None
    try:
        from pet.coordinator.s3_model_store import S3ModelStore

        S3ModelStore(**s3_arguments(s3), history=1, answer_seconds=_ANSWER_SECONDS)
    except PetError as error:
        return _with_remedy(error, "s3.region", "s3", "models are kept in pet-state/models", "start it or create the bucket")
    return None


def _fault_of_broker(nats: NatsSection, *, is_pet1: bool) -> str | None:
    try:
        broker = nats.to_nats_settings()
        if broker is None:
            return None
        from pet.transports.nats import connect
        from pet.transports.nats.pet1_server import require_room
        from pet.transports.nats.storage import ask_storage

        short = replace(broker, request_timeout_seconds=min(_BROKER_SECONDS, broker.request_timeout_seconds))

        async def check_broker() -> None:
            async with await connect(short, NATS_NAME) as connection:
                await ask_storage(connection, "INFO")
                if is_pet1:
                    require_room(connection)

        asyncio.run(check_broker())
    except PetError as error:
        return _with_remedy(error, "nats.hosts", "nats", "it serves over HTTP only")
    return None


def _with_remedy(error: PetError, name: str, section: str, otherwise: str, remedy: str = "start it") -> str:
    """Return a sentence for an error of a server: what is wrong, and what to do."""
    what = str(error).removeprefix(f"{name}: ").rstrip(".")
    if not isinstance(error, MissingExtraError):  # which says how to install it
        what += f"; {remedy}, or correct the settings"
    return f"{what}, or remove the section [{section}]: then {otherwise}"
