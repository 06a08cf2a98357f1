"""docs/python.ipynb is executed as it stands: the Python interface does what it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SHOWN = ("load_recipe", "plan", "run", "open_run", "evaluate", "compare")
NOTEBOOK = Path(__file__).parents[1] / "docs" / "python.ipynb"


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code), "outputs are not committed"
    source = "\n".join(cell.source for cell in code)
    assert all(f"equipoise.{name}(" in source for name in SHOWN)

    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    shown = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert "tune: 96 pairs, 12 steps" in shown
    assert "kept: 1-tune" in shown
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()
    # The last cell scores the adapter again and finds what the run found, on all items instead of the test items.
    again = [line for line in shown.splitlines() if " items: " in line]
    assert len(again) == 2 and "on 40 items: improved" in again[-1] + again[0]
    assert "Loading weights" not in shown
