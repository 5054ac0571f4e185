"""The notebook runs from top to bottom, and shows what it says."""

import ast
import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_it_is_kept_without_results_and_imports_what_there_is():
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)
    python = "\n".join(re.sub(r"^(\s*)%.*$", r"\1pass", code, flags=re.MULTILINE) for code in CODE)
    for node in ast.walk(ast.parse(python)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lesa_jax"):
            assert all(hasattr(importlib.import_module(str(node.module)), alias.name) for alias in node.names)


def test_it_installs_from_where_the_project_says_it_is():
    """Where the project names a repository, so does the notebook."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert f'REPOSITORY = "{urls.get("Repository", "")}"' in CODE[0]


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {
        cell.source: cell.outputs[-1].data
        for cell in notebook.cells
        if cell.get("outputs") and "data" in cell.outputs[-1]
    }
    tables = [data["text/html"] for data in shown.values() if "text/html" in data and "<table>" in data["text/html"]]
    lines = [data["text/plain"] for data in shown.values()]
    names = ("ExpandResult", "Comparison", "Analysis", "TrainResult", "ExpandResult", "UngrowResult")
    assert [line.split("(")[0] for line in lines if line.split("(")[0] in names] == list(names)
    assert len(tables) == len(names)
    assert sum("image/png" in data for data in shown.values()) == 2
    before, after = re.findall(r"perplexity</th><td[^>]*>([\d.]+) -&gt; ([\d.]+)<", tables[0])[0]
    assert before == after  # silent copies
    assert "originals</th>" in tables[-1]
