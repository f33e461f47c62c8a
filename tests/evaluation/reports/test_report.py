from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from flowers.evaluation import (
    LabelIssue,
    Picture,
    PredictionTable,
    Report,
    report_files,
    with_temperature,
)
from flowers.evaluation.reports.report import report_figures, report_numbers

CALIBRATED = {"temperature": 0.5, "threshold": 0.9}


def example(num_classes: int = 5) -> PredictionTable:
    """Return predictions of 300 images, about a fifth of them incorrect."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 300)
    noise = rng.dirichlet(np.ones(num_classes) * 0.3, 300)
    probs = noise * 0.5 + np.eye(num_classes)[labels] * 0.5
    incorrect = rng.random(300) < 0.2
    probs[incorrect] = np.roll(probs[incorrect], 1, axis=1)
    names = tuple(f"class <{k}>" for k in range(num_classes))
    return PredictionTable(names, tuple(f"<b>{i}.jpg" for i in range(300)), labels, probs)


def markdown(report: Report) -> str:
    return report_files(report, report.calibrated)["report.md"]


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
    labels = np.array([0, 0, 0, 1, 1, 2])
    predictions = PredictionTable(("a", "b", "c"), tuple("123456"), labels, probs)
    numbers = report_numbers(Report("test", predictions))
    assert (numbers["images"], numbers["correct"]) == (6, 4)
    assert numbers["accuracy"] == pytest.approx(4 / 6)
    # Wilson by hand: centre (4/6 + 1.9208/6) / (1 + 3.8415/6) = 0.60162, half width 0.30162.
    assert numbers["accuracy_interval_95"] == pytest.approx([0.3000, 0.9032], abs=1e-3)
    for name, score, support in (("a", 2 / 3, 3), ("b", 1 / 2, 2), ("c", 1, 1)):
        expected = {"precision": score, "recall": score, "F1": score, "support": support}
        assert numbers["classes"][name] == pytest.approx(expected)
    mean_score = (2 / 3 + 1 / 2 + 1) / 3
    assert numbers["macro_f1"] == numbers["balanced_accuracy"] == pytest.approx(mean_score)
    log_loss = -np.log([0.8, 0.6, 0.1, 0.5, 0.2, 1.0]).mean()
    assert numbers["log_loss"] == pytest.approx(log_loss, abs=1e-9)
    assert numbers["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    # Every confidence has a bin of its own: |correct - confidence| = 0.2 0.4 0.9 0.5 0.7 0.
    assert numbers["ece"] == pytest.approx((0.2 + 0.4 + 0.9 + 0.5 + 0.7) / 6)


@pytest.mark.parametrize(("num_classes", "has_top_5"), [(5, False), (6, True)])
def test_top_5_accuracy_needs_more_than_5_classes(num_classes, has_top_5):
    report = Report("test", example(num_classes))
    assert ("top_5_accuracy" in report_numbers(report)) == has_top_5
    assert ("top-5 accuracy" in markdown(report)) == has_top_5


def test_calibration_and_rejection_are_measured_on_these_images():
    predictions = example()
    numbers = report_numbers(Report("test", predictions, **CALIBRATED))
    probs = with_temperature(predictions, 0.5).probs
    answered = probs.max(axis=1) >= 0.9
    assert numbers["rejection"]["coverage"] == pytest.approx(answered.mean())
    accuracy = predictions.correct[answered].mean()
    assert numbers["rejection"]["accuracy_when_answered"] == pytest.approx(accuracy)
    log_loss = -np.log(probs[range(300), predictions.labels]).mean()
    assert numbers["log_loss_calibrated"] == pytest.approx(log_loss)


@pytest.mark.parametrize(("temperature", "is_worse"), [(1.0, False), (20.0, True)])
def test_a_temperature_that_is_worse_on_these_images_is_called_so(temperature, is_worse):
    text = markdown(Report("test", example(), temperature=temperature))
    assert ("worse on these images" in text) == is_worse


def test_a_report_without_any_answer_has_no_accuracy_when_answered():
    report = Report("test", example(), temperature=0.5, threshold=2.0)
    assert report_numbers(report)["rejection"]["accuracy_when_answered"] is None
    assert "| coverage | 0.0% |" in markdown(report)


def test_a_temperature_of_one_changes_no_number():
    predictions = example()
    one_hot = np.eye(5)[np.zeros(300, dtype=int)]
    overconfident = replace(predictions, probs=one_hot)  # incorrect with probability 1
    for table in (predictions, overconfident):
        numbers = report_numbers(Report("test", table, temperature=1.0))
        assert numbers["log_loss_calibrated"] == pytest.approx(numbers["log_loss"])
        assert numbers["ece_calibrated"] == pytest.approx(numbers["ece"])


@pytest.mark.usefixtures("figures")
def test_the_page_has_the_numbers_figures_and_examples():
    picture = Picture(jpeg(), "<b>3.jpg", "Bo & <i>Co</i>")
    issue = LabelIssue("<b>9.jpg", "class <0>", "class <1>", 0.01, 0.98)
    report = Report(
        "Test of <x>",
        example(),
        details={"Data": {"folder": "<script>x</script>", "train": "10 images"}},
        mistakes={3: picture._replace(overlay=jpeg())},
        successes={4: picture},
        label_issues={issue: Picture(jpeg(), "<b>9.jpg", link="file:///9.jpg")},
        **CALIBRATED,
    )
    files = report_files(report, report.calibrated)
    page = files["report.html"]
    assert "<script" not in page
    assert "class <" not in page
    assert "<b>3.jpg" not in page
    assert "photo: Bo &amp; &lt;i&gt;Co&lt;/i&gt;" in page
    assert page.count('<div class="card">') == 3
    assert page.count("data:image/jpeg") == 4
    assert page.count('<input type="checkbox"> Grad-CAM') == 1
    assert "Training images to check" in page
    assert "labelled class &lt;0&gt; (1%), predicted class &lt;1&gt; (98%)" in page
    assert '<a href="file:///9.jpg"><img' in page
    assert page.count("data:image/svg+xml") == 6
    assert len([name for name in files if name.startswith("figures/")]) == 6
    numbers = report_numbers(report)
    assert f"{numbers['accuracy']:.1%} ({numbers['correct']} of 300)" in page
    assert "after temperature scaling" in page
    assert f"{numbers['rejection']['accuracy_when_answered']:.1%}" in page


def test_json_and_markdown_have_the_same_numbers():
    report = Report("Test", example(), temperature=0.8)
    numbers = report_numbers(report)
    files = report_files(report, report.calibrated)
    assert json.loads(files["report.json"]) == numbers
    row = f"| balanced accuracy | {numbers['balanced_accuracy']:.1%} |"
    assert row in files["report.md"]


@pytest.mark.parametrize(("num_images", "has_diagram"), [(15, False), (300, True)])
def test_too_few_images_have_no_reliability_diagram(num_images, has_diagram):
    table = example()
    table = replace(
        table,
        paths=table.paths[:num_images],
        labels=table.labels[:num_images],
        probs=table.probs[:num_images],
    )
    figures = report_figures(Report("Test", table, **CALIBRATED))
    assert ("Reliability" in figures) == has_diagram
    assert ("Reliability after temperature scaling" in figures) == has_diagram
