"""What is wrong with settings: values that break their rule, settings that contradict each other, and how errors say so.

Every error names the key as it was written, the value and the rule; values of secrets are not shown. This file reads neither
files nor the environment.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import ErrorDetails

from pet.coordinator.pet1_settings import find_pet1_contradictions
from pet.coordinator.round_sections import Window
from pet.coordinator.setting_names import RULES, SECRET
from pet.coordinator.setting_sections import ApiSettings, NatsSection, SettingsTree
from pet.coordinator.settings_sources import Written
from pet.errors import ConfigError

#: A longer value says no more in an error, and may be a whole file.
_MAX_SHOWN_CHARACTERS: Final = 200
#: Names of the NATS transport, which are those of federations, and ours.
_NATS_NAMES: Final = {
    "nats_hosts": "nats.hosts",
    "nats_sec_nkey_seed": "nats.nkey_seed",
    "nats_req_timeout": "nats.request_timeout",
    "nats_stream_max_memory": "nats.stream_max_memory",
    "size": "nats.stream_max_memory",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One setting that cannot be used.

    Attributes:
        value: what it is set to; None where nothing is.
        rule: what was expected, in words; empty for a name that is none.
        sentence: the whole error, in place of value and rule.
    """

    value: Any = field(default=None, repr=False)
    rule: str = ""
    sentence: str = ""


def find_faults(errors: Iterable[ErrorDetails]) -> dict[str, Fault]:
    """Return what pydantic found: full name -> fault."""
    found: dict[str, Fault] = {}
    for details in errors:
        name = ".".join(str(part) for part in details["loc"])
        if details["type"] == "extra_forbidden":
            found[name] = Fault(details["input"])
            continue
        while name not in RULES and "." in name:
            name = name.rpartition(".")[0]
        found[name] = Fault(details["input"], RULES.get(name, "a section of settings"))
    return found


def without_consequences(faults: Mapping[str, Fault], given: Container[str]) -> dict[str, Fault]:
    """Return the faults without those of values that nobody wrote: they follow from others, as sum2 takes its values from sum.

    Args:
        faults: full name -> fault.
        given: the names that have a value of their own.
    """
    # A fault without a value is about something missing, which nobody can have written.
    kept = {name: each for name, each in faults.items() if name in given or name not in RULES or each.value is None}
    return kept or dict(faults)


def find_contradictions(settings: SettingsTree, faults: Mapping[str, Fault]) -> dict[str, Fault]:
    """Return which settings contradict each other: full name -> fault.

    Args:
        settings: each value keeps its own rule.
        faults: settings that were left out because they do not; what follows from their absence is no contradiction.
    """
    found = {}
    for name, fault in _contradictions(settings):
        # A rule names the settings that it depends on; the rules of the broker are about the whole section.
        depends = name in faults or any(faulty in fault.rule for faulty in faults)
        if not depends and not (name.startswith("nats") and any(faulty.startswith("nats") for faulty in faults)):
            found[name] = fault
    return found


def describe_faults(faults: Mapping[str, Fault], written: Mapping[str, Written]) -> str:
    """Return the text of an error: one line each, in the order of the settings, and names that are none at the end."""
    places = {name: place for place, name in enumerate(RULES)}
    ordered = sorted(faults.items(), key=lambda item: places.get(item[0], len(places)))
    return "\n".join(_describe(name, fault, written) for name, fault in ordered)


def _describe(name: str, fault: Fault, written: Mapping[str, Written]) -> str:
    item = written.get(name)
    key = name if item is None or item.key == name else f"{item.key} ({name})"
    if fault.sentence:
        return f"{key}: {fault.sentence}"
    got = _show(name, fault.value)
    return f"{key}: expected {fault.rule}, got {got}" if fault.rule else f"{key}: no such setting, got {got}"


def _contradictions(settings: SettingsTree) -> Iterator[tuple[str, Fault]]:
    """Yield (full name, fault) for each setting that contradicts another one.

    xaynet's "starvation" rule, 0 < s + u - s*u <= 1, needs no check: it follows from the ranges of the probabilities.
    """
    phases = settings.pet
    windows: dict[str, Window] = {
        "sum.count": phases.sum.count,
        "sum.time": phases.sum.time,
        "update.count": phases.update.count,
        "update.time": phases.update.time,
        "check.time": phases.check.time,
        "sum2.count": phases.sum2.count,
        "sum2.time": phases.sum2.time,
    }
    for name, limits in windows.items():
        if limits.min > limits.max:
            yield f"pet.{name}.max", Fault(limits.max, f"at least pet.{name}.min, which is {limits.min:g}")
    most = phases.sum.count.max
    for limit, value in (("min", phases.sum2.count.min), ("max", phases.sum2.count.max)):
        if value > most >= phases.sum.count.min:
            yield f"pet.sum2.count.{limit}", Fault(value, f"at most pet.sum.count.max, which is {most}")
    models, least = settings.mask.to_mask_config().max_model_count, settings.pet.update.count.min
    if least > models and not phases.is_pet1:
        yield "pet.update.count.min", Fault(least, f"at most {models}, the models that mask.model_type allows")
    for name, sentence in find_pet1_contradictions(settings):
        yield name, Fault(sentence=sentence)
    yield from _broken_tls_rules(settings.api)
    yield from _broken_nats_rules(settings.nats)


def _broken_tls_rules(api: ApiSettings) -> Iterator[tuple[str, Fault]]:
    """Yield what is missing beside a TLS file. xaynet lets `tls_client_auth` stand alone; no server could start so."""
    if (api.tls_certificate is None) != (api.tls_key is None):
        name = "api.tls_key" if api.tls_key is None else "api.tls_certificate"
        yield name, Fault(None, RULES[name])
    elif api.tls_client_auth is not None and api.tls_certificate is None:
        yield "api.tls_client_auth", Fault(str(api.tls_client_auth), RULES["api.tls_client_auth"])


def _broken_nats_rules(nats: NatsSection) -> Iterator[tuple[str, Fault]]:
    """Yield what the transport refuses, under our names."""
    try:
        nats.to_nats_settings()
    except ConfigError as error:
        name, _, sentence = str(error).partition(": ")
        yield _NATS_NAMES.get(name, "nats"), Fault(sentence=sentence)


def _show(name: str, value: Any) -> str:
    """Return a value for an error. A misspelt name may be that of a secret: then its section decides."""
    section = name.split(".")[0]
    if name in SECRET or (name not in RULES and any(secret.startswith(f"{section}.") for secret in SECRET)):
        return (
            "a value that is not shown"
            if isinstance(value, str)
            else f"a value that is not shown, of type {type(value).__name__}"
        )
    if value is None:
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[:_MAX_SHOWN_CHARACTERS]}..."
