from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flowers.evaluation import PredictionTable, Run
from flowers.evaluation.comparison import (
    differing_options,
    disagreements,
    mcnemar,
    pairs,
    run_numbers,
)
from flowers.evaluation.training_curves import Curve


def table(correct: np.ndarray, *, first: int = 0) -> PredictionTable:
    """Return predictions of two classes; the paths are numbered from ``first`` on."""
    labels = np.arange(len(correct)) % 2
    is_label = np.eye(2)[labels] == 1
    probs = np.where(is_label == correct[:, None], 0.9, 0.1)
    paths = tuple(f"{'ab'[label]}/{i + first}.jpg" for i, label in enumerate(labels))
    return PredictionTable(("a", "b"), paths, labels, probs)


def outcomes(*parts: tuple[bool, int]) -> np.ndarray:
    return np.concatenate([np.full(count, value) for value, count in parts])


PERFECT = outcomes((True, 100))


def test_mcnemar_is_the_exact_binomial_test():
    # 9 against 1 of 10 that differ: twice the tail of 10 tosses, 2 (1 + 10) / 2^10.
    assert mcnemar(9, 1) == pytest.approx(22 / 1024)
    assert mcnemar(1, 9) == mcnemar(9, 1)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1.0


def test_the_verdict_names_the_better_run_if_the_difference_is_significant():
    bad = outcomes((True, 80), (False, 20))
    similar = outcomes((False, 1), (True, 99))
    runs = [Run("good", table(PERFECT)), Run("bad", table(bad)), Run("similar", table(similar))]
    first, second, third = pairs(runs)
    assert first[:3] == ("good", "bad", 100)
    assert second[:3] == ("good", "similar", 100)
    assert third[:3] == ("bad", "similar", 100)
    assert first.verdict.startswith("good is better, p = ")
    assert second.verdict == "no significant difference, p = 1"
    assert third.verdict.startswith("similar is better, p = ")
    # Holm: the smallest of three p-values times 3, the next times 2.
    assert first.p_value_corrected == pytest.approx(3 * 2 * 0.5**20)
    assert (third.only_first, third.only_second) == (1, 20)
    assert third.p_value == mcnemar(1, 20)
    assert third.p_value_corrected == pytest.approx(2 * third.p_value)


def test_only_shared_images_with_the_same_label_count():
    run = Run("x", table(PERFECT))
    [pair] = pairs([run, Run("y", table(outcomes((True, 10), (False, 90)), first=60))])
    assert (pair.shared, pair.only_first, pair.only_second) == (40, 30, 0)
    [pair] = pairs([run, Run("y", table(outcomes((True, 5)), first=100))])
    assert pair.verdict == "no test image in common"
    [pair] = pairs([run, Run("y", replace(table(PERFECT), class_names=("b", "a")))])
    assert pair.shared == 0
    assert pairs([run, Run("not tested")]) == []


def test_checksums_identify_images_with_other_paths():
    here = table(PERFECT)
    there = replace(here, paths=tuple(f"elsewhere/{path}" for path in here.paths))
    run = Run("x", here, sha256={path: str(i) for i, path in enumerate(here.paths)})
    moved = Run("y", there, sha256={path: str(i) for i, path in enumerate(there.paths)})
    assert pairs([run, moved])[0].shared == 100
    other = Run("y", here, sha256={path: f"other {i}" for i, path in enumerate(here.paths)})
    assert pairs([run, other])[0].shared == 0


def test_the_verdict_mentions_different_classes():
    first = table(PERFECT)
    probs = np.pad(first.probs, ((0, 0), (0, 1)))
    more = replace(first, class_names=("a", "b", "c"), probs=probs)
    [pair] = pairs([Run("x", first), Run("y", more)])
    assert pair.verdict == ("no significant difference, p = 1, but the runs have different classes")


def test_unknown_numbers_are_left_out():
    assert run_numbers(Run("x")) == {}
    curves = {"val/acc": Curve(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.75, 0.7]))}
    assert run_numbers(Run("x", curves=curves, seconds=60.0)) == {
        "best_validation_accuracy": 0.75,
        "epochs": 3,
        "training_seconds": 60.0,
    }
    tested = Run("x", table(outcomes((True, 8), (False, 2))))
    assert run_numbers(tested)["accuracy"] == 0.8


def test_only_options_that_differ_are_listed():
    first = Run("x", config={"lr": 1, "epochs": 2})
    second = Run("y", config={"lr": 3, "epochs": 2})
    assert differing_options([first, second, Run("z")]) == {"lr": [1, 3, None]}
    assert differing_options([first]) == {}


def test_different_predictions_are_those_for_the_same_image():
    right = table(PERFECT[:4])
    wrong = table(outcomes((False, 1), (True, 3)))
    first, second = Run("x", right), Run("y", wrong)
    [answers] = disagreements([first, second])
    assert [(answer.run, answer.predicted) for answer in answers] == [("x", "a"), ("y", "b")]
    assert answers[0].path == "a/0.jpg"
    other = {path: f"other {path}" for path in right.paths}
    same = {path: path for path in right.paths}
    assert not disagreements([replace(first, sha256=same), replace(second, sha256=other)])
    renamed = replace(wrong, paths=tuple(f"new/{path}" for path in wrong.paths))
    sha256 = dict(zip(renamed.paths, right.paths, strict=True))
    [answers] = disagreements([replace(first, sha256=same), Run("y", renamed, sha256=sha256)])
    assert answers[1].path == "new/a/0.jpg"
