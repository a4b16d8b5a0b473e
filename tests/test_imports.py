"""The rooms of CONTRIBUTING.md: no module imports from a later room, and heavy packages stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import nertool

PACKAGE = Path(nertool.__file__).parent

# First to last; rooms in one row know nothing of each other. `display` stands before `training` although it
# shows what the last rooms make: it needs `evaluation` alone, and the progress of a run prints with it.
ROWS = [
    ["errors"],
    ["files"],
    ["config"],
    ["configfile"],
    ["data"],
    ["evaluation"],
    ["display", "tokenisation"],
    ["conversion", "checking"],
    ["model"],
    ["training"],
    ["comparison"],
    ["tagger", "inspection", "mistakes"],
    ["formats", "mapping"],
    ["spacy_pipe", "spacy_training"],
    ["spacy_component"],
    ["commandline"],
    ["datacommands", "modelcommands"],
    ["cli"],
]
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__")
)
# What makes a program slow to start or is of no concern to it.
HEAVY = {"torch", "torchcrf", "safetensors", "spacy", "seqeval", "sklearn", "numpy", "pydantic", "yaml", "rich"}


class Import(NamedTuple):
    """One import statement: what it names, where it stands, and when it runs."""

    module: str
    line: int
    at_start: bool  # when the module is imported; else when a function is called


def imports_of(path: Path) -> list[Import]:
    """All imports of a file but those for type checkers alone."""

    def walk(node: ast.AST, at_start: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, at_start)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}, line {child.lineno}: a relative import"
                for alias in child.names:
                    yield Import(f"{child.module}.{alias.name}", child.lineno, at_start)
            elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                yield from walk(ast.Module(child.orelse, []), at_start)
            else:
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_start and not inside)

    return list(walk(ast.parse(path.read_text(encoding="utf-8")), True))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def room_named(module: str) -> str | None:
    """The room that an import of nertool reaches into; None for other packages and for nertool itself."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if package == "nertool" and room in RANK else None


def top(module: str) -> str:
    return module.partition(".")[0]


by_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def test_every_module_has_its_room():
    assert {room_of(path) for path in MODULES} == set(RANK)


def test_the_walk_sees_what_there_is(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b.c\n"
        "try:\n    from d import e\nexcept ImportError:\n    pass\n"
        "class K:\n    import f\n    def m(self):\n        import g\n"
    )
    found = {(each.module, each.at_start) for each in imports_of(path)}
    assert found == {("typing.TYPE_CHECKING", True), ("b.c", True), ("d.e", True), ("f", True), ("g", False)}


@by_module
def test_imports_go_one_way(path):
    room = room_of(path)
    for module, line, _ in imports_of(path):
        other = room_named(module)
        if other is not None and other != room:
            assert RANK[other] < RANK[room], f"{path.name}, line {line}: {room} imports from {other}, a later room"


@by_module
def test_heavy_packages_stay_in_their_rooms(path):
    everywhere = {top(each.module) for each in imports_of(path)}
    at_start = {top(each.module) for each in imports_of(path) if each.at_start}
    room = room_of(path)
    if room in ("errors", "files", "config", "configfile", "data", "evaluation", "display"):
        assert not everywhere & {"torch", "torchcrf", "safetensors"}
    if not room.startswith("spacy_"):
        assert "spacy" not in at_start
    if not room.startswith("spacy_") and room not in ("tokenisation", "display") and path.name != "docbin.py":
        assert "spacy" not in everywhere
    if room in ("spacy_pipe", "spacy_component"):  # read by every pipeline that starts
        assert not at_start & HEAVY - {"spacy", "numpy"}
    if path.relative_to(PACKAGE).as_posix() != "data/hub.py":
        assert not everywhere & {"datasets", "pyarrow"}
    assert not at_start & {"datasets", "pyarrow", "pandas"}
    if room != "configfile":
        assert "yaml" not in everywhere
    if room not in ("config", "configfile"):
        assert "pydantic" not in everywhere
    if room in ("errors", "files", "commandline", "datacommands", "modelcommands", "cli"):
        assert not at_start & HEAVY
    assert not everywhere & {"pickle", "marshal", "shelve", "dill", "joblib"}, "nothing is ever unpickled"


def test_cli_imports_only_light_rooms_of_nertool_when_it_starts():
    found = {each.module for each in imports_of(PACKAGE / "cli.py") if each.at_start}
    assert {room_named(module) for module in found} == {
        None,
        "errors",
        "commandline",
        "datacommands",
        "modelcommands",
    }


def test_importing_data_loads_no_torch_and_importing_model_no_spacy():
    rooms = {
        name: [path.stem for path in MODULES if room_of(path) == name] for name in ("data", "model", "training")
    }
    code = [
        "import sys",
        *(f"import nertool.data.{name}" for name in rooms["data"] if name != "__init__"),
        "import nertool.evaluation.scores, nertool.config.loading, nertool.views.console",
        "assert not sys.modules.keys() & {'torch', 'spacy', 'seqeval', 'sklearn', 'datasets', 'pyarrow'}, 'data'",
        *(f"import nertool.{room}.{name}" for room in ("model", "training") for name in rooms[room]),
        "import nertool.tagging.tagger, nertool.views.model",
        "assert 'torch' in sys.modules and 'spacy' not in sys.modules, 'model'",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
