from __future__ import annotations

import json
import re

import numpy as np

from flowers.evaluation import Picture, PredictionTable, Run, comparison_files
from flowers.evaluation.comparison import pairs
from flowers.evaluation.training_curves import Curve


def table(num_correct: int) -> PredictionTable:
    """Return predictions of 100 images of class a, the first ones correct."""
    labels = np.zeros(100, dtype=int)
    is_correct = np.arange(100) < num_correct
    probs = np.where(is_correct[:, None], [0.9, 0.1], [0.1, 0.9])
    return PredictionTable(("a", "b"), tuple(map(str, range(100))), labels, probs)


def files_of(runs: list[Run]) -> dict[str, str | bytes]:
    return comparison_files(runs, lambda path: Picture(b"", path))


def example() -> list[Run]:
    curves = {"val/loss": Curve(np.array([1.0]), np.array([0.5]))}
    good = Run("<x>", table(100), curves=curves, config={"lr": 1})
    return [good, Run("y|z", table(70), config={"lr": "<script>"})]


def test_every_format_has_the_verdict_and_escapes_names():
    runs = example()
    verdict = pairs(runs)[0].verdict
    files = files_of(runs)
    assert [*files] == ["compare.html", "compare.json", "compare.md", "validation_loss.png"]
    numbers = json.loads(files["compare.json"])
    assert numbers["pairs"][0]["verdict"] == verdict
    assert numbers["runs"]["<x>"]["accuracy"] == 1.0
    text = files["compare.md"]
    assert verdict in text
    assert "y\\|z" in text
    page = files["compare.html"]
    assert "&lt;x&gt; is better" in page
    assert "<script" not in page
    assert page.count("data:image/svg+xml") == 3  # a curve, and a confusion matrix of each run
    assert "Images with different predictions (30)" in page
    assert page.count('<div class="card">') == 30
    assert page.count("&lt;x&gt;: a") == page.count("y|z: b") == 30


def test_a_run_without_a_test_is_a_row_of_the_table():
    assert re.search(r"\| new +\| not tested ", files_of([*example(), Run("new")])["compare.md"])


def test_runs_without_a_common_image_have_no_test():
    other = PredictionTable(("a", "b"), ("elsewhere",), np.array([0]), np.array([[0.9, 0.1]]))
    files = files_of([Run("x", table(100)), Run("y", other)])
    [pair] = json.loads(files["compare.json"])["pairs"]
    assert pair == {"first": "x", "second": "y", "shared": 0, "verdict": "no test image in common"}
