"""Imports point one way: a module imports only from modules that stand above it in this list."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from in_turn import in_turn
from sources import FILES, ROOT, trees

#: Lowest first. A name covers everything under it; the longest match counts.
LAYERS = [
    ["pet._extras", "pet.shown"],
    ["pet.errors", "pet.buffers", "pet.log_lines"],
    ["pet.secret"],
    ["pet.urls", "pet.numbers"],
    ["pet._installation", "pet._orders", "pet.threads"],
    ["pet.mask_choices"],
    ["pet.mask_config", "pet.plan"],
    ["pet.field_config"],
    ["pet.array_tree"],
    ["pet.kernels", "pet.crypto", "pet.edwards", "pet.layout", "pet.packing", "pet.updates"],
    ["pet.crypto_batches", "pet.pet1.hashes", "pet.pet1.refusing", "pet.pet1.enrolment_file"],
    ["pet.pet1.enrolment"],
    ["pet.parallel_draws"],
    ["pet.parallel"],
    ["pet.parallel_fields"],
    ["pet.mask_codec", "pet.mask_derivation", "pet.totals"],
    ["pet.packed_object"],
    ["pet.mask_object"],
    ["pet.masking", "pet.global_model", "pet.model_formats"],
    ["pet.field_model", "pet.shares"],
    ["pet.aggregation"],
    ["pet.vectors", "pet.adapters"],
    ["pet"],
    ["pet.messages"],
    ["pet.pet1"],
    ["pet.protocol"],
    ["pet.profile"],
    ["pet.files"],
    ["pet.bodies", "pet.change_guard"],
    ["pet.transports"],
    ["pet.coordinator", "pet.participant"],
    ["pet.federation.formats.encoding", "pet.federation.failure_limit"],
    ["pet.federation.formats.json_form"],
    ["pet.federation.records"],
    ["pet.federation.formats"],
    ["pet.federation.peer_store"],
    ["pet.federation.statistics"],
    ["pet.federation.runtime"],
    ["pet.federation.client", "pet.federation.peer", "pet.federation.server"],
    ["pet.federation"],
    ["pet.flower"],
    ["pet.advice"],
    ["pet.commands"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

#: What may do I/O, keep time or start threads; the protocol and everything below may not.
FORBIDDEN_IN_PROTOCOL = {
    "socket",
    "asyncio",
    "threading",
    "time",
    "ssl",
    "http",
    "httpx",
    "starlette",
    "uvicorn",
    "random",
    "secrets",
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


#: The entry points and the table of commands are one layer with the commands.
ENTRY_POINTS = {"pet.cli": "pet.commands", "pet.__main__": "pet.commands"}


def layer_of(name: str) -> str:
    name = ENTRY_POINTS.get(name, name)
    while name not in RANK:
        name = name.rpartition(".")[0]
    return name


def imported(path: Path) -> set[str]:
    """Absolute names that a file imports anywhere in it; `from pet import x` counts as pet.x where that is a module."""
    return imported_by(ast.walk(trees()[path]), path)


def imported_by(nodes: Iterable[ast.AST], path: Path) -> set[str]:
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT.parent / full.replace(".", "/")).with_suffix(".py").exists() or full in RANK
                names.add(full if is_module else str(node.module))
    return names


NAMES = {module_name(path) for path in FILES}


@in_turn("path", FILES, ids=module_name)
def test_imports_point_one_way(path):
    own = layer_of(module_name(path))
    for name in imported(path):
        if name.split(".")[0] != "pet":
            continue
        other = layer_of(name)
        assert other == own or RANK[other] < RANK[own], f"{module_name(path)} imports {name}, which stands above it"


def imported_when_run(path: Path) -> set[str]:
    """Return the modules of pet that a file imports anywhere in it, inside functions too, but not for type checkers alone."""
    return {name for name in imported_by(when_run(trees()[path]), path) if name in NAMES} - {module_name(path)}


def when_run(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through a tree, but not into what is for type checkers alone."""
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        children = node.orelse
    for child in children:
        yield child
        yield from when_run(child)


def strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules each of which imports, by way of others, itself."""
    reachable = {name: set(others) for name, others in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reachable[name]:
                reachable[name] |= reachable[middle]
    cycles = {
        tuple(sorted(other for other in graph if other in reachable[name] and name in reachable[other])) for name in graph
    }
    return sorted(list(cycle) for cycle in cycles if cycle)


def test_no_module_imports_itself_by_way_of_others():
    """Inside packages either: such modules are one module, whose parts cannot be read, tested or moved alone."""
    assert strongly_connected({module_name(path): imported_when_run(path) for path in FILES}) == []


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": {"d"}, "f": {"d"}}
    assert strongly_connected(graph) == [["a", "b", "c"], ["d", "e"]]


@in_turn("path", [path for path in FILES if module_name(path).startswith("pet.protocol")], ids=module_name)
def test_the_protocol_does_no_io(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & FORBIDDEN_IN_PROTOCOL


def test_no_class_name_stands_twice():
    """One meaning a word: readers search for a name and must find one thing."""
    names = [node.name for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    twice = sorted({name for name in names if names.count(name) > 1 and not name.startswith("_")})
    assert not twice


#: Lines. What is longer does two things, and each is easier to find, to read and to test in a file of its own.
MAX_LINES = 350


def test_no_file_of_the_federations_is_long():
    lengths = {
        module_name(path): path.read_text(encoding="utf-8").count("\n")
        for path in FILES
        if module_name(path).startswith("pet.federation")
    }
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


MAP = ROOT.parent / "docs/map.md"
BEGIN, END = "<!-- layers: begin, made by tests/test_layers.py -->\n", "<!-- layers: end -->\n"


def with_layers(document: str) -> str:
    """Return the map with the list of layers as it is now."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = "".join(f"{number:3}  {'  '.join(names)}\n" for number, names in enumerate(LAYERS))
    return f"{before}{BEGIN}```\n{lines}```\n{END}{after}"


def test_the_map_shows_the_layers():
    document = MAP.read_text(encoding="utf-8")
    assert document == with_layers(document), "run: python tests/test_layers.py"


if __name__ == "__main__":
    MAP.write_text(with_layers(MAP.read_text(encoding="utf-8")), encoding="utf-8")
