"""The names of pet's modules, for tests that import all of them."""

import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec

import pet


def module_names() -> Iterator[str]:
    """Yield every module but programs, and but those for frameworks that are not installed here."""
    for found in pkgutil.walk_packages(pet.__path__, "pet."):
        if not found.name.endswith(".__main__") and find_spec(framework_of(found.name)):
            yield found.name


def framework_of(module: str) -> str:
    """Return what a module imports that the extra `test` does not bring: adapters are called after it."""
    match module.split("."):
        case [_, "adapters", framework]:
            return framework
        case [_, "flower", *_]:
            return "flwr"
    return "pet"
