from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from flowers.evaluation import (
    Curve,
    PredictionTable,
    Run,
    comparison_figures,
    comparison_html,
    comparison_json,
    comparison_markdown,
    differing_options,
    mcnemar,
    pairs,
    run_numbers,
)


def predicted(right: np.ndarray, *, offset: int = 0) -> PredictionTable:
    """Two classes; image ``i`` is predicted rightly where told so."""
    labels = np.arange(len(right)) % 2
    probs = np.where((np.eye(2)[labels] == 1) == right[:, None], 0.9, 0.1)
    paths = tuple(f"{'ab'[label]}/{i + offset}.jpg" for i, label in enumerate(labels))
    return PredictionTable(("a", "b"), paths, labels, probs)


def outcomes(*parts: tuple[bool, int]) -> np.ndarray:
    return np.concatenate([np.full(count, value) for value, count in parts])


def test_mcnemar_is_the_exact_binomial():
    # 9 against 1 of 10 that differ: twice the tail of 10 tosses, 2 (1 + 10) / 2^10.
    first, second = outcomes((True, 59), (False, 1)), outcomes((True, 50), (False, 9), (True, 1))
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (9, 1)
    assert test.p_value == pytest.approx(22 / 1024)
    assert mcnemar(second, first).p_value == test.p_value
    assert mcnemar(first, first).p_value == 1.0


def test_the_better_run_is_named_or_it_is_said_that_none_can_be_told():
    good, bad = outcomes((True, 100)), outcomes((True, 80), (False, 20))
    like = outcomes((False, 1), (True, 99))
    runs = [
        Run(name, predicted(right))
        for name, right in {"good": good, "bad": bad, "like": like}.items()
    ]
    found = pairs(runs)
    assert [(pair.first, pair.second, pair.shared) for pair in found] == [
        ("good", "bad", 100),
        ("good", "like", 100),
        ("bad", "like", 100),
    ]
    assert found[0].verdict.startswith("good is better, p = ")
    assert found[1].verdict == "no difference can be told, p = 1"
    assert found[2].verdict.startswith("like is better, p = ")
    # Holm: the smallest of three times 3, the next times 2.
    assert found[0].corrected == pytest.approx(3 * 2 * 0.5**20)
    assert found[2].corrected == pytest.approx(2 * mcnemar(bad, like).p_value)
    assert found[2].test == mcnemar(bad, like)


def test_only_shared_images_under_one_label_count():
    first = predicted(outcomes((True, 100)))
    second = predicted(outcomes((True, 10), (False, 90)), offset=60)
    [pair] = pairs([Run("x", first), Run("y", second)])
    assert (pair.shared, pair.test.only_first, pair.test.only_second) == (40, 30, 0)
    [pair] = pairs([Run("x", first), Run("y", predicted(outcomes((True, 5)), offset=100))])
    assert pair.verdict == "no test image in common"
    assert pairs([Run("x", first), Run("not tested")]) == []
    [pair] = pairs([Run("x", first), Run("y", replace(first, class_names=("b", "a")))])
    assert pair.shared == 0


def test_images_are_known_again_by_their_content():
    found = predicted(outcomes((True, 100)))
    moved = replace(found, paths=tuple(f"elsewhere/{path}" for path in found.paths))
    here = {path: str(number) for number, path in enumerate(found.paths)}
    there = {path: str(number) for number, path in enumerate(moved.paths)}
    assert pairs([Run("x", found, sha256=here), Run("y", moved, sha256=there)])[0].shared == 100
    other = {path: f"another {number}" for number, path in enumerate(found.paths)}
    assert pairs([Run("x", found, sha256=here), Run("y", found, sha256=other)])[0].shared == 0


def test_a_verdict_over_other_classes_says_so():
    first = predicted(outcomes((True, 100)))
    more = replace(first, class_names=("a", "b", "c"), probs=np.pad(first.probs, ((0, 0), (0, 1))))
    [pair] = pairs([Run("x", first), Run("y", more)])
    assert pair.verdict == "no difference can be told, p = 1, but they tell apart other classes"


def test_what_is_unknown_of_a_run_is_left_out():
    assert run_numbers(Run("x")) == {}
    curves = {"val/acc": Curve(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.75, 0.7]))}
    assert run_numbers(Run("x", curves=curves, seconds=60.0)) == {
        "best_validation_accuracy": 0.75,
        "epochs": 3,
        "training_seconds": 60.0,
    }
    assert run_numbers(Run("x", predicted(outcomes((True, 8), (False, 2)))))["accuracy"] == 0.8


def test_only_options_that_differ_are_listed():
    runs = [
        Run("x", config={"lr": 1, "epochs": 2}),
        Run("y", config={"lr": 3, "epochs": 2}),
        Run("z"),
    ]
    assert differing_options(runs) == {"lr": [1, 3, None]}
    assert differing_options(runs[:1]) == {}


def test_the_texts_hold_the_verdict_and_escape_names():
    curves = {"val/loss": Curve(np.array([1.0]), np.array([0.5]))}
    first = Run("<x>", predicted(outcomes((True, 100))), curves=curves, config={"lr": 1})
    runs = [
        first,
        Run("y|z", predicted(outcomes((False, 30), (True, 70))), config={"lr": "<script>"}),
    ]
    verdict = pairs(runs)[0].verdict
    facts = json.loads(comparison_json(runs))
    assert facts["pairs"][0]["verdict"] == verdict
    assert facts["runs"]["<x>"]["accuracy"] == 1.0
    text = comparison_markdown(runs)
    assert verdict in text
    assert "y\\|z" in text
    page = comparison_html(runs, comparison_figures(runs))
    assert "&lt;x&gt; is better" in page
    assert "<script" not in page
    assert page.count("data:image/svg+xml") == 1
