"""The tutorial: its stored outputs are those of this version."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parent.parent / "notebooks" / "flowers.ipynb"
# The tag of cells whose numbers differ between machines, as the accuracy of a training does.
MACHINE_DEPENDENT = "machine-dependent"
HOW_TO_UPDATE = "store them again: jupyter execute --inplace notebooks/flowers.ipynb"


@pytest.fixture
def tutorial():
    return nbformat.read(FILE, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """Return the kinds of a cell's outputs, such as stdout or image/jpeg."""
    names = []
    for output in cell.outputs:
        if output.output_type != "stream":
            names += sorted(output.data)
        elif output.name not in names[-1:]:  # a text may be in several parts
            names.append(output.name)
    return names


def text(cell):
    """Return the text outputs of a cell; of a figure, its size."""
    texts = []
    for output in cell.outputs:
        is_stream = output.output_type == "stream"
        texts.append(output.text if is_stream else output.data["text/plain"])
    return "".join(texts)


def test_the_stored_outputs_are_complete_and_small(tutorial):
    cells = code_cells(tutorial)
    numbers = [cell.execution_count for cell in cells]
    assert numbers == list(range(1, len(cells) + 1)), HOW_TO_UPDATE
    all_kinds = [kind for cell in cells for kind in kinds(cell)]
    assert set(all_kinds) == {"stdout", "image/jpeg", "text/plain"}
    assert all_kinds.count("image/jpeg") >= 8
    assert FILE.stat().st_size < 1_500_000


def test_the_stored_outputs_hold_nothing_of_one_machine(tutorial):
    for cell in code_cells(tutorial):
        assert not re.search(r"/(home|root|tmp|Users)/|0x[0-9a-f]{6}", text(cell)), cell.id


@pytest.mark.slow
def test_the_tutorial_runs_and_prints_what_is_stored(tutorial, tmp_path):
    (tmp_path / "notebooks").mkdir()
    stored = code_cells(tutorial)
    fresh = nbformat.read(FILE, as_version=4)
    for cell in code_cells(fresh):
        cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
    NotebookClient(fresh, timeout=600, resources=resources).execute()
    for before, after in zip(stored, code_cells(fresh), strict=True):
        assert kinds(before) == kinds(after), after.id
        if MACHINE_DEPENDENT not in after.metadata.get("tags", []):
            assert text(before) == text(after), f"{after.id}: {HOW_TO_UPDATE}"
    printed = "".join(text(cell) for cell in code_cells(fresh))
    accuracies = re.findall(r"test accuracy: (\d+) of 100 images", printed)
    assert accuracies
    assert min(map(int, accuracies)) > 85
    [transfer] = re.findall(r"test accuracy after one epoch: ([\d.]+)%", printed)
    assert float(transfer) > 85
