"""The order of rooms: no module imports from a later room, and heavy packages stay where they belong."""

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

# First to last, as in ARCHITECTURE and CONTRIBUTING. `api` is what `nertool` offers to its users.
ROOMS = [
    "errors",
    "forking",
    "config",
    "text",
    "formats",
    "data",
    "model",
    "evaluation",
    "tagging",
    "serving",
    "training",
    "comparison",
    "experiments",
    "labelling",
    "views",
    "integrations",
    "cli",
    "api",
]
RANK = {room: rank for rank, room in enumerate(ROOMS)}
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.name.startswith("__")
)
# What makes a program slow to start or is of no concern to it.
HEAVY = {
    *("torch", "torchcrf", "safetensors", "spacy", "seqeval", "sklearn", "scipy", "numpy", "pydantic", "yaml"),
    *("rich", "jinja2", "matplotlib", "datasets", "pyarrow", "pandas", "pooch", "requests"),
    *("fastapi", "uvicorn", "prometheus_client", "huggingface_hub"),
}
# Room, or file, where alone a package is imported.
HOMES = {
    "rich": {"views"},
    "jinja2": {"views"},
    "markupsafe": {"views"},
    "matplotlib": {"views"},
    "click": {"cli"},
    "fastapi": {"serving", "labelling"},
    "uvicorn": {"serving", "labelling"},
    "httptools": {"serving"},
    "prometheus_client": {"serving"},
    "yaml": {"config"},
    "pydantic": {"config", "serving", "labelling"},  # what a config says, and what a request says
    "pydantic_core": {"config"},
    "pooch": {"data"},
    "requests": {"data"},
    "torchcrf": {"model"},
    "safetensors": {"tagging", "training", "data", "model"},
    "seqeval": {"evaluation"},
    "sklearn": {"evaluation"},
    "scipy": {"comparison", "training", "evaluation"},
    "onnx": {"tagging"},
    "onnxruntime": {"tagging"},
    "optuna": {"experiments"},
    "sqlalchemy": {"experiments"},
    "tensorboard": {"integrations"},
    "tokenizers": {"data"},
    "huggingface_hub": {"data"},
    "tqdm": {"data"},
    "transformers": {"model"},
    "mlflow": {"integrations"},
    "trackio": {"integrations"},
}
NO_TORCH = {"errors", "config", "text", "formats", "data", "evaluation", "cli"}
SPACY = {"text", "formats", "integrations", "views"}


class Import(NamedTuple):
    """One import statement: what it names, its line, and when it runs."""

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


by_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


def test_every_module_has_its_room():
    assert {room_of(path) for path in MODULES} <= set(RANK)
    assert set(RANK) - {room_of(path) for path in MODULES} == set()


def test_the_walk_sees_what_there_is(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import a\nelse:\n    import b.c\n"
        "try:\n    from d import e\nexcept ImportError:\n    pass\n"
        "class K:\n    import f\n    def m(self):\n        import g\n",
        encoding="utf-8",
    )
    found = {(each.module, each.at_start) for each in imports_of(path)}
    assert found == {("typing.TYPE_CHECKING", True), ("b.c", True), ("d.e", True), ("f", True), ("g", False)}


@by_module
def test_imports_go_one_way(path):
    room = room_of(path)
    for module, line, _ in imports_of(path):
        other = room_named(module)
        if other is None or other == room:
            continue
        where = f"{path.relative_to(PACKAGE)}, line {line}"
        assert RANK[other] < RANK[room], f"{where}: {room} imports from {other}, a later room"
        if other == "views":
            assert room in ("cli", "integrations", "api"), f"{where}: only cli, integrations and api draw"


@by_module
def test_no_module_goes_through_the_public_api(path):
    """`nertool.Tagger` and its like are for users; `nertool.__version__` is for all."""
    assert not [
        each
        for each in imports_of(path)
        if top(each.module) == "nertool" and each.module.count(".") == 1 and room_named(each.module) is None
    ]


@by_module
def test_heavy_packages_stay_in_their_rooms(path):
    everywhere = {top(each.module) for each in imports_of(path)}
    at_start = {top(each.module) for each in imports_of(path) if each.at_start}
    room = room_of(path)
    for package in everywhere & HOMES.keys():
        assert room in HOMES[package], f"{package} is for {', '.join(HOMES[package])}"
    if room in NO_TORCH:
        assert not everywhere & {"torch", "torchcrf"}
        assert path.name in ("vector_models.py", "shards.py") or "safetensors" not in everywhere  # needs no torch
    if room != "integrations":
        assert "spacy" not in at_start
    # One matches phrases with spaCy, the other reads spaCy's vectors.
    if room not in SPACY and path.name not in ("gazetteer.py", "vector_models.py"):
        assert "spacy" not in everywhere
    # Optional packages are asked for when they are needed.
    assert not at_start & {
        "datasets",
        "pyarrow",
        "pandas",
        "matplotlib",
        "optuna",
        "sqlalchemy",
        "onnx",
        "onnxruntime",
        "huggingface_hub",
        "tqdm",
    }
    if room not in ("formats", "integrations"):
        assert not everywhere & {"datasets", "pyarrow"}
    if room in ("errors", "cli"):
        assert not at_start & HEAVY
    assert not everywhere & {"pickle", "marshal", "shelve", "dill", "joblib"}, "nothing is ever unpickled"


def test_cli_imports_only_light_rooms_of_nertool_when_it_starts():
    for path in (PACKAGE / "cli").glob("*.py"):
        rooms = {room_named(each.module) for each in imports_of(path) if each.at_start}
        assert rooms <= {None, "errors", "cli"}, path


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def test_rooms_load_no_more_than_they_need():
    rooms = {
        room: [
            ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            for path in MODULES
            if room_of(path) == room
        ]
        for room in ROOMS
    }
    later = {"torch", "spacy", "seqeval", "sklearn", "datasets", "pyarrow", "rich", "jinja2", "matplotlib"}
    first = [
        name for room in ("errors", "config", "text", "formats", "data", "evaluation") for name in rooms[room]
    ]
    then = [
        name
        for room in ("model", "tagging", "training", "comparison", "experiments", "views")
        for name in rooms[room]
    ]
    run_python(
        "import sys\n"
        + "".join(f"import {name.removesuffix('.__init__')}\n" for name in first)
        + f"assert not sys.modules.keys() & {later}, sys.modules.keys() & {later}\n"
        + "".join(f"import {name.removesuffix('.__init__')}\n" for name in then)
        + "assert 'torch' in sys.modules\n"
        "found = sys.modules.keys() & {'spacy', 'datasets', 'pyarrow', 'matplotlib'}\n"
        "assert not found, found\n"
    )


def test_importing_nertool_and_asking_for_help_load_nothing_heavy():
    run_python(
        "import sys\n"
        "import nertool, nertool.cli.main\n"
        "try:\n    nertool.cli.main.main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        f"found = sys.modules.keys() & {HEAVY}\n"
        "assert not found, found\n"
    )


def test_help_takes_no_time():
    """Processor time, and the least of several: how busy the machine is says nothing about nertool."""
    resource = pytest.importorskip("resource")

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    python = min(seconds("-c", "pass") for _ in range(3))
    nertool_help = min(seconds("-m", "nertool", "--help") for _ in range(3))
    assert nertool_help - python < 0.3 * max(1.0, python / 0.02), "about 0.06 s on a laptop"
