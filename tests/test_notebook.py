"""The tour runs from its first cell to its last."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_tutorial_runs_and_shows_its_figures(tmp_path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "notebooks").mkdir()
    tour = nbformat.read(ROOT / "notebooks" / "tour.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in tour.cells), (
        "store the tour without outputs: they go stale"
    )
    NotebookClient(
        tour, timeout=600, resources={"metadata": {"path": str(tmp_path / "notebooks")}}
    ).execute()
    outputs = [output for cell in tour.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    printed = "".join(output.get("text", "") for output in outputs)
    result = re.search(r"test/acc: (\d+) of 100 images are correct", printed)
    assert result is not None
    assert int(result[1]) > 90
