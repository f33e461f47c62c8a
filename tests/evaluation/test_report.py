from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, classification_report

from flowers.evaluation import (
    Example,
    PredictionTable,
    Rejection,
    Report,
    predictions_csv,
    read_predictions,
    report_figures,
    report_html,
    report_json,
    report_markdown,
    report_numbers,
    with_temperature,
)


def example(num_classes: int = 5, count: int = 300) -> PredictionTable:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, count)
    probs = (
        rng.dirichlet(np.ones(num_classes) * 0.3, count) * 0.5 + np.eye(num_classes)[labels] * 0.5
    )
    wrong = rng.random(count) < 0.2
    probs[wrong] = np.roll(probs[wrong], 1, axis=1)
    names = tuple(f"class <{k}>" for k in range(num_classes))
    return PredictionTable(names, tuple(f"<b>{i}.jpg" for i in range(count)), labels, probs)


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "JPEG")
    return file.getvalue()


def test_three_classes_counted_by_hand():
    # Labels 0 0 0 1 1 2, predicted 0 0 1 1 0 2; confidence 0.8, 0.6, 0.9, 0.5, 0.7, 1.0.
    probs = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.6, 0.2, 0.2],
            [0.1, 0.9, 0.0],
            [0.25, 0.5, 0.25],
            [0.7, 0.2, 0.1],
            [0.0, 0.0, 1.0],
        ]
    )
    found = PredictionTable(("a", "b", "c"), tuple("123456"), np.array([0, 0, 0, 1, 1, 2]), probs)
    numbers = report_numbers(Report("test", found))
    assert (numbers["images"], numbers["right"]) == (6, 4)
    assert numbers["accuracy"] == pytest.approx(4 / 6)
    # Wilson by hand: centre (4/6 + 1.9208/6) / (1 + 3.8415/6) = 0.60162, half width 0.30162.
    assert numbers["accuracy_interval_95"] == pytest.approx([0.3000, 0.9032], abs=1e-3)
    assert numbers["classes"]["a"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "F1": 2 / 3, "support": 3}
    )
    assert numbers["classes"]["b"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "F1": 1 / 2, "support": 2}
    )
    assert numbers["classes"]["c"] == pytest.approx(
        {"precision": 1, "recall": 1, "F1": 1, "support": 1}
    )
    assert (
        numbers["macro_f1"]
        == numbers["balanced_accuracy"]
        == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    )
    assert numbers["log_loss"] == pytest.approx(
        -np.log([0.8, 0.6, 0.1, 0.5, 0.2, 1.0]).mean(), abs=1e-9
    )
    assert numbers["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    # Every confidence has a bin of its own: |right - confidence| = 0.2 0.4 0.9 0.5 0.7 0.
    assert numbers["ece"] == pytest.approx((0.2 + 0.4 + 0.9 + 0.5 + 0.7) / 6)
    assert "top_5_accuracy" not in numbers


def test_the_numbers_are_scikit_learns():
    found = example()
    numbers = report_numbers(Report("test", found))
    predicted = found.probs.argmax(axis=1)
    oracle = classification_report(
        found.labels, predicted, target_names=found.class_names, output_dict=True
    )
    for name in found.class_names:
        ours, theirs = numbers["classes"][name], oracle[name]
        assert ours["precision"] == pytest.approx(theirs["precision"])
        assert ours["recall"] == pytest.approx(theirs["recall"])
        assert ours["F1"] == pytest.approx(theirs["f1-score"])
        assert ours["support"] == theirs["support"]
    assert numbers["macro_f1"] == pytest.approx(oracle["macro avg"]["f1-score"])
    assert numbers["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(found.labels, predicted)
    )


def test_top_5_stands_where_there_are_more_classes():
    found = example(8)
    numbers = report_numbers(Report("test", found))
    best = np.argsort(-found.probs, axis=1)[:, :5]
    assert numbers["top_5_accuracy"] == np.mean(
        [label in row for label, row in zip(found.labels, best, strict=True)]
    )


def test_calibration_and_rejection_are_measured_on_these_images():
    found = example()
    numbers = report_numbers(
        Report("test", found, temperature=0.5, rejection=Rejection(0.9, 0.5, 0.99))
    )
    probs = with_temperature(found.probs, 0.5)
    answered = probs.max(axis=1) >= 0.9
    assert numbers["rejection"]["coverage"] == pytest.approx(answered.mean())
    right = (probs.argmax(axis=1) == found.labels)[answered]
    assert numbers["rejection"]["accuracy_of_answers"] == pytest.approx(right.mean())
    assert numbers["log_loss_calibrated"] == pytest.approx(
        -np.log(probs[range(300), found.labels]).mean()
    )
    nothing = report_numbers(
        Report("test", found, temperature=0.5, rejection=Rejection(2.0, 0.0, 1.0))
    )
    assert nothing["rejection"]["accuracy_of_answers"] is None


def test_the_page_is_whole_escapes_names_and_shows_what_it_is_given():
    found = example()
    card = Example(3, jpeg(), jpeg(), "Bo & <i>Co</i>")
    facts = {"Data": {"folder": "<script>x</script>", "train": "10 images"}}
    report = Report(
        "Test of <x>", found, temperature=0.8, rejection=Rejection(0.9, 0.5, 0.99), facts=facts
    )
    shown = Report(
        **(vars(report) | {"mistakes": [card], "successes": [card._replace(overlay=None)]})
    )
    page = report_html(shown, report_figures(shown))
    assert "<script" not in page
    assert "class <" not in page
    assert "<b>3.jpg" not in page
    assert "photo: Bo &amp; &lt;i&gt;Co&lt;/i&gt;" in page
    assert not re.search(r'(src|href)=(?!"data:image/(jpeg|svg\+xml);base64,)', page)
    assert page.count("data:image/jpeg") == 3
    assert page.count("data:image/svg+xml") == 6
    numbers = report_numbers(report)
    assert f"{numbers['accuracy']:.1%} ({numbers['right']} of 300)" in page
    assert "after temperature scaling" in page


def test_json_and_markdown_hold_the_same_numbers():
    report = Report("Test", example(), temperature=0.8)
    assert json.loads(report_json(report)) == json.loads(json.dumps(report_numbers(report)))
    assert f"{report_numbers(report)['balanced_accuracy']:.1%}" in report_markdown(report)


def test_a_name_cannot_break_a_table():
    found = replace(example(), class_names=("a|b", "c\nd", "e", "f", "g"))
    markdown = report_markdown(Report("test", found))
    assert "| a\\|b | " in markdown
    assert "| c d | " in markdown


def test_a_temperature_of_one_changes_no_number():
    found = example()
    sure = replace(
        found, probs=np.where(np.arange(5) == 0, 1.0, 0.0)[None].repeat(300, axis=0)
    )  # wrong with certainty
    for predictions in (found, sure):
        numbers = report_numbers(Report("test", predictions, temperature=1.0))
        assert numbers["log_loss_calibrated"] == pytest.approx(numbers["log_loss"])
        assert numbers["ece_calibrated"] == pytest.approx(numbers["ece"])


@pytest.mark.parametrize(
    ("row", "said"),
    [("0.5,nan", "probabilities"), ("-0.5,1.5", "probabilities"), ("87,0", "probabilities")],
)
def test_what_is_no_probability_is_refused(row, said, tmp_path):
    (tmp_path / "p.csv").write_text(f"path,label,predicted,rejected,error,a,b\nx.jpg,a,b,,,{row}\n")
    with pytest.raises(ValueError, match=rf"p\.csv: expected {said}"):
        read_predictions(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_text("path,label,predicted,rejected,error,a\nx.jpg,a,a,,,1\n")
    with pytest.raises(ValueError, match="at least two classes"):
        read_predictions(tmp_path / "p.csv")


def test_predictions_read_back_as_they_were_written(tmp_path):
    found = example()
    (tmp_path / "p.csv").write_text(predictions_csv(found), newline="")
    again = read_predictions(tmp_path / "p.csv")
    assert (again.class_names, again.paths) == (found.class_names, found.paths)
    assert np.array_equal(again.labels, found.labels)
    assert again.probs == pytest.approx(found.probs, rel=1e-6)
