from __future__ import annotations

from flowers.tasks.classification_result import classify

NAMES = ["cat", "dog", "emu"]


def test_the_label_is_the_most_probable_class():
    first = classify([0.25, 0.5, 0.25], NAMES, threshold=0.0, path="a.jpg")
    second = classify([0.125, 0.125, 0.75], NAMES, threshold=0.0, path="")
    assert (first.label, first.probability, first.path) == ("dog", 0.5, "a.jpg")
    assert (second.label, second.probability, second.path) == ("emu", 0.75, "")
    assert first.probabilities == {"cat": 0.25, "dog": 0.5, "emu": 0.25}


def test_a_class_below_the_threshold_is_rejected():
    assert classify([0.25, 0.5, 0.25], NAMES, threshold=0.75, path="").rejected
    assert not classify([0.125, 0.125, 0.75], NAMES, threshold=0.75, path="").rejected


def test_nan_is_rejected():
    assert classify([float("nan")] * 3, NAMES, threshold=0.0, path="").rejected


def test_the_same_answer_for_two_files_is_equal():
    probs = [0.25, 0.5, 0.25]
    first = classify(probs, NAMES, threshold=0.5, path="a.jpg")
    assert first == classify(probs, NAMES, threshold=0.5, path="b.jpg")
