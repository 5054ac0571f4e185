"""The house rules of lesa_jax's packages: which may import which. docs/architecture.md says why."""

import ast
import re
from dataclasses import astuple
from pathlib import Path

import lesa_jax
from lesa_jax.families import gpt2, llama, roles

ROOT = Path(lesa_jax.__file__).parent

# The floors, ground first. A module imports from its own package and from floors below.
FLOORS = (
    {"base"},
    {"reports"},
    {"checkpoint", "parallel", "tracking", "demo", "command"},
    {"data", "families"},
    {"planning", "profiles"},
    {"models", "ungrowth"},
    {"initializers", "evaluation", "decoding", "widening"},
    {"growth", "training", "analysis", "tasks"},
    {"comparison"},
    {"__init__"},  # the public names
    {
        "expand",
        "widen",
        "ungrow",
        "evaluate",
        "generate",
        "harness",
        "train",
        "compare",
        "analyze",
        "profile",
        "__main__",
    },  # the doors
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_JAX = {
    "base",
    "checkpoint",
    "families",
    "planning",
    "profiles",
    "ungrowth",
    "widening",
}  # copying runs at the speed of `cp`
JAX = {"jax", "flax", "optax", "orbax"}
PRESENTATION = {"report", "card", "page", "pictures"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, also in functions; those of lesa_jax without the package's name."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {_module(f"{node.module}.{alias.name}") for alias in node.names}
    return found


def _module(name: str) -> str:
    """`a.b.c` as the module that it is or lies in."""
    if not name.startswith("lesa_jax."):
        return name
    inside = name.removeprefix("lesa_jax.")
    return inside if inside in MODULES else inside.rpartition(".")[0] or "__init__"


def own(path: Path) -> set[str]:
    return {name for name in imports(path) if name in MODULES}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} == set(FLOOR_OF)


def test_imports_go_down():
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in own(path)
        if room(other) != room(module) and FLOOR_OF[room(other)] >= FLOOR_OF[room(module)]
    ]
    assert not wrong


def test_there_is_no_circle():
    edges = {module: own(path) for module, path in MODULES.items()}
    open_, done = [], set()

    def visit(module: str) -> None:
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module not in done:
            open_.append(module)
            for other in sorted(edges[module] - {module}):
                visit(other)
            done.add(open_.pop())

    for module in edges:
        visit(module)


def test_no_jax_where_copying_goes_through():
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path)
        if room(module) in WITHOUT_JAX and name.split(".")[0] in JAX
    ]
    assert not wrong


def test_what_computes_does_not_import_what_presents():
    wrong = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in own(path)
        if module.split(".")[-1] not in PRESENTATION | {"run"}
        and FLOOR_OF[room(module)] < len(FLOORS) - 1  # a door may
        and other.split(".")[-1] in PRESENTATION
    ]
    assert not wrong


def test_files_fit_into_a_head():
    long = {
        module: lines for module, path in MODULES.items() if (lines := len(path.read_text("utf-8").splitlines())) > 400
    }
    assert not long


def test_no_other_room_spells_a_tensor_name():
    words = {"model", "layers", "norm", "o"}  # of English, or of matplotlib, too
    names = {part for value in astuple(llama.NAMES) if value for part in value.split(".")}
    names = (names | roles.RESIDUAL_WRITERS | roles.ROUTERS | gpt2.CONV1D) - words
    wrong = [
        f"{module}: {text!r}"
        for module, path in MODULES.items()
        if room(module) != "families"
        for text in strings(path)
        if re.fullmatch(r"[\w.*]+", text) and names & set(text.split("."))
    ]
    assert not wrong


def strings(path: Path) -> list[str]:
    """The string constants of a file, docstrings and parts of f-strings included."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_tests_share_by_support_only():
    tests = Path(__file__).parent
    wrong = [
        f"{path.relative_to(tests)} imports {name}"
        for path in tests.rglob("*.py")
        for name in imports(path)
        if name.startswith("tests.") and not name.startswith("tests.support")
    ]
    assert not wrong
