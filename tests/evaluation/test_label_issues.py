from __future__ import annotations

import numpy as np

from flowers.evaluation import PredictionTable, label_issues, top_losses

NAMES = ("a", "b", "c")


def table(labels, probs, names) -> PredictionTable:
    paths = tuple(f"{i}.jpg" for i in range(len(labels)))
    return PredictionTable(names, paths, np.array(labels), np.array(probs))


def test_planted_label_errors_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    probs = rng.dirichlet([1, 1, 1], 300) * 0.3 + np.eye(3)[truth] * 0.7
    labels = truth.copy()
    labels[:10] = (truth[:10] + 1) % 3
    issues = label_issues(table(labels, probs, NAMES))
    assert {issue.path for issue in issues[:10]} == {f"{i}.jpg" for i in range(10)}
    assert all(issue.suggested == NAMES[truth[int(issue.path[:-4])]] for issue in issues[:10])
    margins = [issue.label_prob - issue.suggested_prob for issue in issues]
    assert margins == sorted(margins)


def test_an_image_without_a_confident_class_is_no_issue():
    probs = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.45, 0.55]]
    assert label_issues(table([0, 0, 1, 1, 0], probs, ("a", "b"))) == []
    probs[4] = [0.05, 0.95]
    [issue] = label_issues(table([0, 0, 1, 1, 0], probs, ("a", "b")))
    assert issue[:3] == ("4.jpg", "a", "b")


def test_the_top_losses_are_the_least_probable_labels():
    probs = [[0.9, 0.1], [0.3, 0.7], [0.1, 0.9], [0.02, 0.98], [0.6, 0.4]]
    issues = top_losses(table([0, 0, 1, 0, 0], probs, ("a", "b")), 3)
    assert list(issues) == [3, 1]
    assert issues[3] == ("3.jpg", "a", "b", 0.02, 0.98)
    assert issues[3].detail == "labelled a (2%), predicted b (98%)"
    assert list(top_losses(table([0, 0, 1, 0, 0], probs, ("a", "b")), 1)) == [3]


def test_a_correct_prediction_is_no_label_issue_however_unsure():
    probs = [[0.4, 0.35, 0.25], [0.2, 0.45, 0.35]]
    assert list(top_losses(table([0, 0], probs, NAMES), 2)) == [1]
