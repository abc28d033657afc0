"""The tree of exceptions: all of them are in one file, and each survives what carries errors from process to process."""

import ast
import builtins
import copy
import importlib
import inspect
import multiprocessing
import pickle
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from in_turn import in_turn
from pet_modules import module_names
from sources import FILES, ROOT, trees

from pet import errors
from pet._extras import install_command
from pet.errors import AggregationError, MissingExtraError, PetError


def subclasses(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


TREE = [PetError, *dict.fromkeys(cls for cls in subclasses(PetError) if cls.__module__ == errors.__name__)]


def is_exception(name: str) -> bool:
    """Whether a base class of this name makes an exception: a built-in one, or one called so."""
    builtin = getattr(builtins, name, None)
    if isinstance(builtin, type):
        return issubclass(builtin, BaseException) and not issubclass(builtin, Warning)
    return name.endswith(("Error", "Exception"))


@in_turn("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_exceptions_are_in_one_file_and_one_tree(path):
    for node in ast.walk(trees()[path]):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        if any(map(is_exception, [node.name, *bases])):
            assert path == ROOT / "errors.py", f"{node.name} stands outside pet/errors.py"
            assert issubclass(getattr(errors, node.name), PetError)


def test_nothing_makes_an_exception_while_it_is_imported():
    for name in module_names():
        importlib.import_module(name)
    assert {cls.__module__ for cls in subclasses(PetError)} == {errors.__name__}


def test_the_tree_is_drawn_as_it_is():
    assert errors.__doc__ is not None
    drawn, path = {}, [PetError.__name__]
    for line in errors.__doc__.splitlines():
        if (found := re.match(r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))?(?:  | ?$)? *", line)) is not None:
            path[len(found[1]) // 4 + 1 :] = [found[2]]
            drawn[found[2]] = (path[-2], found[3])

    def parent(cls: type) -> type:
        """The nearest public class above."""
        return next(base for base in cls.__mro__[1:] if issubclass(base, PetError) and not base.__name__.startswith("_"))

    for cls in TREE[1:]:
        if not cls.__name__.startswith("_"):
            above, builtin = drawn.pop(cls.__name__)
            assert above == parent(cls).__name__, cls
            builtins_of_its_own = {base.__name__ for base in cls.__bases__ if not issubclass(base, PetError)}
            assert builtins_of_its_own == ({builtin} if builtin else set()), cls
    assert drawn == {}


#: An argument for each type that a constructor asks for.
ARGUMENTS: dict[Any, Any] = {
    str: "expected 3 weights, got ü",
    int: 404,
    float: 2.5,
    str | None: "name",
    int | None: 3,
    float | None: 2.5,
    Iterable[str]: ["alice"],  # of two, a set that was pickled may show the other first
    Mapping[str, Any] | None: {"key": [1, None]},
    Mapping[str, str] | None: {"retry-after": "2"},
}


def make(cls: type[PetError], *, all_arguments: bool = True, by_name: bool = False) -> PetError:
    """An error with arguments of the right types, so that a new class is tested without being listed."""
    parameters = list(inspect.signature(cls).parameters.values())
    types = typing.get_type_hints(cls.__init__)
    wanted = [each for each in parameters if all_arguments or each.default is each.empty]
    values = {each.name: ARGUMENTS[types[each.name]] for each in wanted}
    error = cls(**values) if by_name else cls(*values.values())
    error.add_note("while the model of alice was added")
    return error


def facts(error: BaseException) -> tuple[Any, ...]:
    names = {name for name in dir(error) if not name.startswith("_")} - {"add_note", "with_traceback", "naming"}
    return type(error), str(error), repr(error), error.__notes__, {name: getattr(error, name, None) for name in names}


def fail(cls: type[PetError]) -> None:
    raise make(cls)


EVERY = in_turn("cls", TREE, ids=lambda cls: cls.__name__)
HOW = in_turn("how", [{}, {"all_arguments": False}, {"by_name": True}])


@EVERY
@HOW
def test_errors_survive_pickle_and_copy(cls, how):
    error = make(cls, **how)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)
    assert facts(copy.copy(error)) == facts(error)
    assert facts(copy.deepcopy(error)) == facts(error)
    again = cls(*error.args)
    assert (str(again), again.args) == (str(error), error.args)


@EVERY
def test_the_text_is_the_message_alone(cls):
    error = make(cls)
    assert "(" not in str(error), "the tuple of the arguments"
    assert str(error).isprintable()


def test_errors_survive_pools_of_processes():
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as pool, ProcessPoolExecutor(1, mp_context=spawn) as executor:
        for cls in TREE:
            for result in (pool.apply_async(fail, (cls,)), executor.submit(fail, cls)):
                with pytest.raises(PetError) as caught:
                    result.get(120) if hasattr(result, "get") else result.result(120)
                assert facts(caught.value) == facts(make(cls))


@pytest.mark.long
def test_errors_survive_joblib():
    joblib = pytest.importorskip("joblib")
    executor = joblib.executor.get_memmapping_executor(1)
    try:
        for cls, future in [(cls, executor.submit(fail, cls)) for cls in TREE]:
            with pytest.raises(PetError) as caught:
                future.result(120)
            assert facts(caught.value) == facts(make(cls))
        with pytest.raises(AggregationError, match="expected 3 weights"):
            joblib.Parallel(n_jobs=2)([joblib.delayed(fail)(AggregationError)] * 2)
    finally:
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True, kill_workers=True)


def test_a_missing_extra_keeps_the_name_of_the_package():
    with pytest.raises(MissingExtraError) as caught, MissingExtraError.naming("redis"):
        import no_such_package  # noqa: F401
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert error.name == "no_such_package"
        assert install_command("redis") in str(error)


def test_the_text_can_be_printed_whatever_it_is_about():
    error = PetError("expected a name, got \udcff" + "x" * 100_000)
    assert str(error).encode().startswith(b"expected a name, got \\udcff")
    assert len(str(error)) < 20_000
    assert facts_of_text(pickle.loads(pickle.dumps(error))) == facts_of_text(error)


def facts_of_text(error: PetError) -> tuple[str, tuple[Any, ...]]:
    return str(error), error.args
