"""Secrets are seen by nobody: not in text, not in a pickle, not in the repr of anything that holds one."""

import ast
import copy
import dataclasses
import importlib
import json
import logging
import pickle
import re

import pydantic
import pytest
from pet_modules import module_names
from sources import trees

import pet
from pet.mask_object import MaskSeed
from pet.secret import Secret, hidden

TEXT, BYTES = Secret("correct horse"), Secret(b"battery staple")


@pytest.mark.parametrize("secret", [TEXT, BYTES], ids=["text", "bytes"])
def test_a_secret_is_hidden_wherever_it_is_printed(secret, caplog):
    logging.getLogger("test").warning("%s %r %s", secret, secret, [secret])
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", str({"key": secret}), "%s" % secret]  # noqa: UP031
    assert not [text for text in [*shown, caplog.text] if "horse" in text or "staple" in text]


def test_a_secret_is_revealed_by_name_only():
    assert (TEXT.reveal(), TEXT.reveal_bytes(), BYTES.reveal_bytes()) == ("correct horse", b"correct horse", b"battery staple")
    with pytest.raises(TypeError, match="expected text, got bytes"):
        BYTES.reveal()
    with pytest.raises(TypeError, match="expected text or bytes, got int"):
        Secret(17)  # type: ignore[arg-type]
    assert Secret.of(TEXT) is TEXT
    assert Secret.of("correct horse") == TEXT


def test_secrets_are_compared_by_value_and_kind():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != Secret(b"a")
    assert Secret("\ud800") == Secret("\ud800") != Secret("a")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))


def test_a_secret_is_copied_but_neither_pickled_nor_written_as_json():
    assert copy.copy(TEXT) is copy.deepcopy(TEXT) is TEXT
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(TEXT, protocol)
    with pytest.raises(TypeError):
        json.dumps({"key": TEXT})


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(hide_input_in_errors=True)
    password: Secret
    token: Secret | None = None


def test_pydantic_takes_a_secret_as_the_type_of_a_field():
    model = Model.model_validate({"password": "correct horse", "token": BYTES})
    assert (model.password, model.token) == (TEXT, BYTES)
    assert Model.model_validate_json('{"password": "correct horse"}').password == TEXT
    assert model.model_dump() == {"password": TEXT, "token": BYTES}
    assert "horse" not in model.model_dump_json() + repr(model) + str(model)
    assert Model.model_json_schema()["properties"]["password"]["type"] == "string"
    assert model.model_copy(deep=True) == model
    with pytest.raises(pydantic.ValidationError, match="expected text") as caught:
        Model.model_validate({"password": 123456})
    assert "123456" not in str(caught.value)


def test_hidden_is_a_field_like_any_other():
    @dataclasses.dataclass
    class Record:
        key: bytes = hidden()
        other: bytes = hidden(default=b"")

    assert repr(Record(b"sesame")).endswith("Record()")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'key'"):
        Record()  # type: ignore[call-arg]


#: Whole words of a name that make its value a secret.
SECRET_WORDS = {"password", "passwd", "token", "secret", "seed", "seeds", "private", "nkey", "entropy"}
#: What makes a secret public: encryption. The seeds of the dictionaries are encrypted too.
PUBLIC = re.compile("encrypted|dictionary")
#: Fields with such a name whose value is no secret, and why.
NOT_SECRET = {
    ("RoundParameters", "seed"): "the round seed, which everybody gets",
    ("RoundRecord", "seed"): "as above",
    ("RoundStart", "previous_seed"): "as above, of the round before",
    ("MachineState", "seed"): "as above",
    ("RoundModel", "round_seed"): "as above",
    ("JournalPosition", "round_seed"): "as above",
    ("RoundPosition", "round_seed"): "as above",
    ("_Round", "seed"): "as above",
    ("Recording", "seed"): "as above",
}


def modules():
    yield pet
    yield from map(importlib.import_module, module_names())


def records():
    """Yield every dataclass and pydantic model of pet."""
    found = {value for module in modules() for value in vars(module).values() if isinstance(value, type)}
    return sorted(
        (kind for kind in found if kind.__module__.startswith("pet.") and (dataclasses.is_dataclass(kind) or is_model(kind))),
        key=lambda kind: (kind.__module__, kind.__name__),
    )


def is_model(kind):
    return issubclass(kind, pydantic.BaseModel)


def field_types(kind):
    if is_model(kind):
        return {name: str(field.annotation) for name, field in kind.model_fields.items()}
    return {field.name: str(field.type) for field in dataclasses.fields(kind)}


def holds_secret(kind, name, annotation):
    words = set(name.strip("_").split("_"))
    is_number = annotation in {"int", "float", "bool"} or annotation.startswith("Annotated[int")
    return (
        bool(words & SECRET_WORDS)
        and not is_number
        and not PUBLIC.search(name)
        and "Callable" not in annotation
        and (kind.__name__, name) not in NOT_SECRET
    )


def shown(kind, marked):
    """Return the repr and str of a record whose secret fields hold a mark, as the type of the field lets them."""
    if is_model(kind):
        values = {name: pydantic.TypeAdapter(kind.model_fields[name].annotation).validate_python("sesame") for name in marked}
        record = kind.model_construct(**values)
        return repr(record) + str(record)
    record = object.__new__(kind)
    for name, annotation in field_types(kind).items():
        value = "sesame" if name in marked else None
        object.__setattr__(record, name, Secret("sesame") if value and re.search(r"\bSecret\b", annotation) else value)
    return repr(record) + str(record)


def test_no_record_shows_a_secret():
    """A field for a secret has the type `Secret`, or is left out of repr by `hidden()`."""
    found = {}
    for kind in records():
        marked = {name for name, annotation in field_types(kind).items() if holds_secret(kind, name, annotation)}
        if marked:
            found[kind.__name__] = marked
            assert "sesame" not in shown(kind, marked), f"{kind.__module__}.{kind.__name__} shows one of {sorted(marked)}"
    # The search finds what it is for.
    assert {"SigningKeyPair", "EncryptionKeyPair", "NatsSettings", "SavedParticipant"} <= set(found)


def test_secret_bytes_are_hidden_in_one_way():
    """Not each by its own `field(repr=False)`, which also leaves out what is only long."""
    calls = {}
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and isinstance(node.target, ast.Name):
                name = node.target.id
                if not set(name.split("_")) & SECRET_WORDS or PUBLIC.search(name):
                    continue
                if (call := ast.unparse(node.value)).startswith(("field(", "hidden(")):
                    calls[f"{path.name}:{node.lineno} {name}"] = call
    assert len(calls) >= 5
    assert [place for place, call in calls.items() if "repr" in call] == []


def test_a_mask_seed_is_hidden():
    assert "sesame" not in repr(MaskSeed(b"sesame".ljust(32))) + str(MaskSeed(b"sesame".ljust(32)))
