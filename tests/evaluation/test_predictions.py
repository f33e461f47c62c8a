from __future__ import annotations

import csv

import numpy as np
import pytest

from flowers.evaluation import PredictionTable, read_predictions
from flowers.evaluation.predictions import predictions_csv

HEADER = "path,label,predicted,rejected,error,a,b\n"


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a text into a CSV file."""

    def write_text(text):
        file = tmp_path / "p.csv"
        file.write_text(text, newline="")
        return file

    return write_text


def test_predictions_are_read_as_they_were_written(write):
    rng = np.random.default_rng(0)
    paths = tuple(f'a "{i}", b.jpg' for i in range(50))
    probs = rng.dirichlet(np.ones(3), 50)
    written = PredictionTable(("a", "b,c", "d"), paths, rng.integers(0, 3, 50), probs)
    read = read_predictions(write(predictions_csv(written)))
    assert (read.class_names, read.paths) == (written.class_names, written.paths)
    assert np.array_equal(read.labels, written.labels)
    assert read.probs == pytest.approx(written.probs, rel=1e-6)


def test_predictions_saved_by_a_spreadsheet_program_are_read(write):
    text = f"{HEADER}x.jpg,a,a,,,1,0\ny.jpg,b,b,,,2.5E-01,0.75\n"
    expected = read_predictions(write(text))
    read = read_predictions(write("\ufeff" + text.replace(",", ";").replace(".", ",")))
    assert read.class_names == ("a", "b")
    assert np.array_equal(read.probs, expected.probs)
    assert read.probs.tolist() == [[1, 0], [0.25, 0.75]]


def test_predictions_below_the_threshold_are_rejected():
    probs = np.array([[0.9, 0.1], [0.4, 0.6]])
    predictions = PredictionTable(("a", "b"), ("x.jpg", "y.jpg"), np.array([0, 0]), probs)
    lines = predictions_csv(predictions, threshold=0.7).split("\r\n")
    assert lines[1:3] == ["x.jpg,a,a,False,,0.9,0.1", "y.jpg,a,b,True,,0.4,0.6"]
    assert predictions_csv(predictions).split("\r\n")[1] == "x.jpg,a,a,,,0.9,0.1"


def test_predictions_of_several_seeds_are_averaged(write):
    rows = "x.jpg,a,a,,,0.9,0.1\ny.jpg,b,a,,,0.6,0.4\nx.jpg,a,b,,,0.3,0.7\n"
    predictions = read_predictions(write(HEADER + rows))
    assert predictions.class_names == ("a", "b")
    assert predictions.paths == ("x.jpg", "y.jpg")
    assert predictions.labels.tolist() == [0, 1]
    assert predictions.probs.tolist() == [[pytest.approx(0.6), pytest.approx(0.4)], [0.6, 0.4]]


def test_images_that_could_not_be_read_are_skipped(write):
    text = f"{HEADER}broken.jpg,,,,no image,,\nx.jpg,b,a,,,0.9,0.1\n"
    assert read_predictions(write(text)).paths == ("x.jpg",)
    with pytest.raises(ValueError, match="got only images that could not be read"):
        read_predictions(write(f"{HEADER}broken.jpg,,,,no image,,\n"))


def test_labels_can_be_missing(write):
    file = write(f"{HEADER}x.jpg,,a,,,0.9,0.1\ny.jpg,b,a,,,0.9,0.1\n")
    assert read_predictions(file, needs_labels=False).labels.tolist() == [-1, 1]
    with pytest.raises(ValueError, match="expected a label in each row"):
        read_predictions(file)


@pytest.mark.parametrize("text", ["", "path,label\nx,a\n", "path,label,predicted,a,b\n", HEADER])
def test_another_file_is_refused(write, text):
    columns = "expected the columns path, label, predicted, rejected, error and at"
    with pytest.raises(ValueError, match=columns):
        read_predictions(write(text))


def test_a_label_without_a_column_is_named(write):
    with pytest.raises(ValueError, match="expected a column for each label, got none for emu"):
        read_predictions(write(f"{HEADER}x,emu,a,,,1,0\n"))


def test_a_line_with_other_columns_is_named(write):
    with pytest.raises(ValueError, match="expected 7 columns in each line, got 6 in line 3"):
        read_predictions(write(f"{HEADER}x,a,a,,,1,0\ny,a,a,,,1\n"))


def test_one_class_is_refused(write):
    with pytest.raises(ValueError, match="at least two classes"):
        read_predictions(write("path,label,predicted,rejected,error,a\nx.jpg,a,a,,,1\n"))


@pytest.mark.parametrize("probs", ["0.5,nan", "-0.5,1.5", "87,0", "inf,0", "yes,no"])
def test_invalid_probabilities_are_refused(probs, write):
    with pytest.raises(ValueError, match=r"p\.csv: expected (a )?probabilit"):
        read_predictions(write(f"{HEADER}x.jpg,a,b,,,{probs}\n"))


def test_names_of_columns_and_formulas_are_text_and_read_back(write):
    names = ("=1+1", "error", "label", "path", "rose")
    paths = ("-2/1.jpg", "@x.jpg", "'+1.jpg", "a.jpg", "b.jpg")
    written = PredictionTable(names, paths, np.arange(5), np.eye(5))
    text = predictions_csv(written)
    header, *rows = csv.reader(text.splitlines())
    assert len({*header}) == len(header) == 10
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)
    read = read_predictions(write(text))
    assert (read.class_names, read.paths) == (names, paths)
    assert read.labels.tolist() == [0, 1, 2, 3, 4]
    # As written before names had an apostrophe.
    assert read_predictions(write(text.replace("'", ""))).class_names == names
