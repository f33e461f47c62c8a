from __future__ import annotations

import torch

from flowers.tasks.classify import classify

NAMES = ["cat", "dog", "emu"]


def test_the_label_is_the_most_probable_class():
    probs = torch.tensor([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])
    first, second = classify(probs, NAMES, threshold=0.0, paths=["a.jpg", ""])
    assert (first.label, first.probability, first.path) == ("dog", 0.5, "a.jpg")
    assert (second.label, second.probability, second.path) == ("emu", 0.75, "")
    assert first.probabilities == {"cat": 0.25, "dog": 0.5, "emu": 0.25}


def test_a_class_below_the_threshold_is_rejected():
    probs = torch.tensor([[0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])
    answers = classify(probs, NAMES, threshold=0.75, paths=["", ""])
    assert [answer.rejected for answer in answers] == [True, False]


def test_nan_is_rejected():
    [answer] = classify(torch.full((1, 3), float("nan")), NAMES, threshold=0.0, paths=[""])
    assert answer.rejected


def test_the_same_answer_for_two_files_is_equal():
    probs = torch.tensor([[0.25, 0.5, 0.25]])
    [first] = classify(probs, NAMES, threshold=0.5, paths=["a.jpg"])
    [second] = classify(probs, NAMES, threshold=0.5, paths=["b.jpg"])
    assert first == second
