"""Names in the code: each is used, bounds are called alike, and constants are commented in one way."""

import ast
import functools
import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from in_turn import in_turn
from sources import FILES, ROOT, parse, trees

REPOSITORY = ROOT.parent

#: Names that a library calls, where no base class of the library says so.
CALLED_FROM_OUTSIDE = {
    ("pet/transports/nats/large_messages.py", "Wire"): "nats-py asks the same of its own transports",
}
#: Decorators by which pydantic finds a method.
VALIDATORS = {"field_validator", "model_validator", "field_serializer", "model_serializer", "validator"}


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def docstrings(nodes: list[ast.AST]) -> set[int]:
    """Return which constants are docstrings: they use no name."""
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    firsts = [node.body[0] for node in nodes if isinstance(node, owners) and node.body]
    return {id(first.value) for first in firsts if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)}


def used_names(nodes: list[ast.AST], skipped: set[int]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield from re.findall(r"\w+", node.value)


def bound_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module or a class binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets if isinstance(node, ast.Assign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def definitions(path: Path, body: list[ast.stmt], owner: str = "") -> Iterator[tuple[Path, str, str, ast.stmt]]:
    """Yield file, class, name and node of everything that modules and classes define."""
    for node in body:
        for name in bound_names(node):
            yield path, owner, name, node
        if isinstance(node, ast.ClassDef):
            yield from definitions(path, node.body, node.name)
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions(path, [*node.body, *node.orelse], owner)


def is_called_from_outside(path: Path, owner: str, name: str, node: ast.stmt) -> bool:
    """Return whether a library calls a method: it overrides one, or is found by its decorator."""
    if (name_of(path), owner) in CALLED_FROM_OUTSIDE:
        return True
    decorators = {each for wrapper in getattr(node, "decorator_list", []) for each in map(ast.unparse, ast.walk(wrapper))}
    if decorators & VALIDATORS:
        return True
    module = importlib.import_module(name_of(path).removesuffix(".py").replace("/", "."))
    kind = getattr(module, owner, None)
    return inspect.isclass(kind) and any(hasattr(base, name) for base in kind.__mro__[1:])


def words_outside_python() -> set[str]:
    """Return what documents say, and pages and programs that belong to the package."""
    documents = [*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md"), REPOSITORY / "setup.py"]
    programs = [path for path in ROOT.rglob("*") if path.suffix in {".html", ".c"}]
    return {word for path in [*documents, *programs] for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}


@functools.cache
def words_of_tests() -> dict[Path, set[str]]:
    """Return the words of each file that uses pet: one without a name need not be parsed to see whether it uses it."""
    folders = (REPOSITORY / name for name in ("tests", "benchmarks", "examples"))
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return {path: set(re.findall(r"\w+", path.read_text(encoding="utf-8"))) for path in files}


def left_of(names: Iterable[str], finds: Callable[[list[ast.AST], set[int]], Iterator[str]]) -> set[str]:
    """Return the names that a search finds neither in pet, its tests and examples, nor in documents."""
    left = set(names) - words_outside_python()
    for tree in trees().values():
        left.difference_update(in_tree(tree, finds))
    for path, words in words_of_tests().items():
        if left & words:
            left.difference_update(in_tree(parse([path])[path], finds))
    return left


def in_tree(tree: ast.Module, finds: Callable[[list[ast.AST], set[int]], Iterator[str]]) -> Iterator[str]:
    nodes = list(ast.walk(tree))
    return finds(nodes, docstrings(nodes))


def attributes(tree: ast.Module) -> Iterator[str]:
    """Yield the fields of classes, and what methods set of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (name for each in node.body if isinstance(each, ast.AnnAssign) for name in bound_names(each))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def read_names(nodes: list[ast.AST], skipped: set[int]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield from re.findall(r"\w+", node.value)


def test_every_attribute_is_read():
    found = [(path, name) for path, tree in trees().items() for name in attributes(tree)]
    left = left_of({name for _, name in found}, read_names)
    unread = [f"{name_of(path)}: {name}" for path, name in found if name in left]
    assert unread == []


def test_every_name_is_used():
    """In pet itself, its tests, examples and documentation. Python's own double underscores are left out."""
    found = [each for path, tree in trees().items() for each in definitions(path, tree.body)]
    left = left_of({name for _, _, name, _ in found}, used_names)
    unused = [
        f"{name_of(path)}: {owner and owner + '.'}{name}"
        for path, owner, name, node in found
        if name in left
        and not name.startswith("__")
        and not (owner and isinstance(node, ast.AnnAssign))
        and not is_called_from_outside(path, owner, name, node)
    ]
    assert unused == []


def constants(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    for node in trees()[path].body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield from ((name, node) for name in bound_names(node) if name.isupper())


@in_turn("path", FILES, ids=name_of)
def test_bounds_are_called_max_and_min(path):
    """Not MOST_, LARGEST_, LONGEST_ or _MAX at the end."""
    words = "MOST|LEAST|LARGEST|SMALLEST|LONGEST|SHORTEST|HIGHEST|LOWEST|FEWEST|GREATEST"
    other = re.compile(rf"_?(?:{words})_|.*_(?:MAX|MIN|{words})$")
    assert [name for name, _ in constants(path) if other.match(name)] == []


def test_bounds_of_the_kernels_are_called_so_too():
    found = re.compile(r"\b(?:MOST|LEAST|LARGEST|SMALLEST|LONGEST|SHORTEST)_[A-Z_]+\b")
    sources = [path for path in (REPOSITORY / "native").rglob("*") if path.suffix in {".c", ".h"}]
    assert len(sources) > 10
    assert [name for path in sources for name in found.findall(path.read_text(encoding="utf-8"))] == []


@in_turn("path", FILES, ids=name_of)
def test_constants_are_commented_above_in_one_way(path):
    """By lines that begin with `#:`, which documentation tools read; not by a text below, a plain comment, or one behind."""
    lines = path.read_text(encoding="utf-8").splitlines()
    wrong = []
    for body in [trees()[path].body, *(node.body for node in ast.walk(trees()[path]) if isinstance(node, ast.ClassDef))]:
        for node, below in itertools.pairwise(body):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if is_text and isinstance(node, ast.Assign | ast.AnnAssign):
                wrong.append(f"line {below.lineno}: a text below")
    for name, node in constants(path):
        above, own = lines[node.lineno - 2] if node.lineno > 1 else "", lines[node.lineno - 1]
        if re.match(r"#(?!:| ?----| ?noqa| ?type:)", above):
            wrong.append(f"line {node.lineno - 1}: a plain comment above {name}")
        # What is behind a line may be about the line: an exception from a rule, and why.
        if node.lineno == node.end_lineno and re.match(r"[^#\"]*  # (?!noqa|type:)", own):
            wrong.append(f"line {node.lineno}: a comment behind {name}")
    assert wrong == []
