"""The notebook docs/tour.ipynb runs from top to bottom, and what is stored in it is clean.

The test trains for one epoch on a tenth of the documents: it says nothing about scores.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"
FASTER = "epochs = 1\nfraction = 0.1"


@pytest.fixture
def notebook():
    return nbformat.read(TOUR, as_version=4)


def drawn(cell) -> dict[str, str]:
    """All that a cell shows, by type."""
    result: dict[str, str] = {}
    for output in cell.outputs:
        shown = {"text/plain": output.text} if output.output_type == "stream" else output.data
        for kind, text in shown.items():
            result[kind] = result.get(kind, "") + text
    return result


@pytest.mark.slow
def test_it_runs(notebook, tmp_path, monkeypatch):
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert re.findall(r"^(\w+) = ", parameters.source, re.MULTILINE) == ["epochs", "fraction"]
    parameters.source = FASTER
    stored = [drawn(cell) for cell in notebook.cells if cell.cell_type == "code"]
    (tmp_path / "docs").mkdir()
    shutil.copytree(
        ROOT / "corpora" / "demo", tmp_path / "corpora" / "demo", ignore=shutil.ignore_patterns("source")
    )
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=options).execute()
    found = [drawn(cell) for cell in notebook.cells if cell.cell_type == "code"]
    # Each cell shows what it showed when it was stored, but for the numbers.
    assert [set(each) for each in found] == [set(each) for each in stored]
    assert "(True, True)" in [each.get("text/plain") for each in found]
    assert sorted(path.name for path in (tmp_path / "docs" / "runs").iterdir()) == ["model", "model-2"]


def test_what_is_stored_is_clean(notebook):
    nbformat.validate(notebook)
    text = TOUR.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|home|root|work|Users)\b", text), "a path of a machine"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5 and sum(bool(cell.outputs) for cell in code) > 5
    for cell in code:
        assert cell.execution_count is None and set(cell.metadata) <= {"tags"}
        for output in cell.outputs:
            assert output.output_type in ("stream", "execute_result") and output.get("execution_count") is None
            assert output.get("name") != "stderr"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\((?!https?:)([^)#]+)", cell.source):
                assert (TOUR.parent / target).exists(), target
