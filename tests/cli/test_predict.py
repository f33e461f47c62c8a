"""``python -m flowers predict``."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowers import FlowerPredictor
from flowers.__main__ import run_function
from flowers.cli import training
from flowers.cli.predict import predict
from flowers.evaluation import read_predictions


@pytest.fixture
def trained_ckpt(trained_run):
    """Return a checkpoint, for tests that do not depend on the network."""
    return trained_run / "checkpoints" / "best.ckpt"


@pytest.fixture
def untested_run(finished_run, tmp_path):
    """Return a copy of a run folder without results of a test."""
    results = shutil.ignore_patterns("report*", "predictions*", "figures*")
    return shutil.copytree(finished_run, tmp_path / "run", ignore=results)


@pytest.fixture(scope="module")
def tested(task_checkpoint):
    """Return the predictions of ``test``: a dictionary for each test image."""
    training.main(["test", "--ckpt_path", str(task_checkpoint)])
    return read_table(task_checkpoint.parents[1] / "predictions.csv")


def read_table(file: str | Path) -> list[dict[str, str]]:
    with Path(file).open(newline="", errors="surrogateescape") as opened:
        return [*csv.DictReader(opened)]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_predict_writes_the_probabilities_of_test_in_an_empty_folder(
    task_checkpoint, tested, synthetic, tmp_path, batch_size
):
    copy = tmp_path / "moved.ckpt"
    shutil.copy(task_checkpoint, copy)
    tested = tested[::-1]  # predict keeps the order in which the files are given
    files = [str(synthetic / row["path"]) for row in tested]
    assert predict(files, ckpt_path=str(copy), batch_size=batch_size) == 0
    rows = read_table("predictions.csv")
    assert [row["path"] for row in rows] == files
    for row, expected in zip(rows, tested, strict=True):
        assert row["label"] == ""
        assert row["predicted"] == expected["predicted"]
        assert row["rejected"] == expected["rejected"]
        assert row["error"] == ""
        for name in ("daisy", "tulips"):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-6)


def test_predict_and_test_write_the_same_probabilities_for_any_batch_size(
    untested_run, synthetic, tmp_path
):
    training.main(["test", "--ckpt_path", str(untested_run)])
    paths = read_predictions(untested_run / "predictions.csv").paths
    files = [str(synthetic / path) for path in paths]

    def read_results(file):
        """Return the rows without path and label, which ``predict`` does not know."""
        return [row[2:] for row in csv.reader(file.read_text().splitlines())]

    results = {}
    for batch_size in (1, 32):
        out = tmp_path / f"{batch_size}.csv"
        predict(files, ckpt_path=str(untested_run), batch_size=batch_size, out=out)
        results[batch_size] = read_results(out)
    assert results[32] == read_results(untested_run / "predictions.csv")
    for single, batched in zip(results[1][1:], results[32][1:], strict=True):
        assert single[0] == batched[0]
        probs = [float(prob) for prob in single[3:]]
        assert probs == pytest.approx([float(prob) for prob in batched[3:]], abs=2e-6)


def test_a_photo_over_the_limit_is_an_error_that_names_the_option(
    task_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # to restore it
    Image.new("L", (1100, 950)).save(tmp_path / "large.png")
    options = {"ckpt_path": str(task_checkpoint)}
    assert predict([str(tmp_path / "large.png")], max_megapixels=1, **options) == 1
    assert "`max_megapixels` allows larger photos" in capsys.readouterr().out
    assert predict([str(tmp_path / "large.png")], max_megapixels=3, **options) == 0


def test_test_and_predict_with_test_time_augmentation_agree(untested_run, synthetic):
    ckpt = ["--ckpt_path", str(untested_run)]
    plain = training.main(["test", *ckpt]).trainer.callback_metrics
    tta = ["--model.tta", "flip+crops"]
    averaged = training.main(["test", *ckpt, *tta]).trainer.callback_metrics
    assert averaged["test/loss"] != plain["test/loss"]
    report = json.loads((untested_run / "report-2.json").read_text())
    assert report["accuracy"] == pytest.approx(float(averaged["test/acc"]))
    assert report["details"]["Test"]["test-time augmentation"] == "flip+crops"
    expected = read_predictions(untested_run / "predictions-2.csv")
    files = [str(synthetic / path) for path in expected.paths]
    predict(files, ckpt_path=str(untested_run), tta="flip+crops")
    predictions = read_predictions("predictions.csv", needs_labels=False)
    assert (predictions.probs == expected.probs).all()


def test_predict_uses_test_time_augmentation_as_the_predictor(task_checkpoint, synthetic, tmp_path):
    image = np.asarray(Image.open(min((synthetic / "roses").iterdir())))
    Image.fromarray(image).save(tmp_path / "rose.png")
    assert predict([str(tmp_path / "rose.png")], ckpt_path=str(task_checkpoint), tta="flip") == 0
    [row] = read_table("predictions.csv")
    expected = FlowerPredictor(task_checkpoint, tta="flip")(image)
    assert float(row[row["predicted"]]) == pytest.approx(expected.probability, rel=1e-5)


@pytest.mark.slow
def test_two_processes_write_the_same_file_as_one(trained_ckpt, synthetic, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    files = [str(synthetic / "roses"), str(tmp_path / "broken.jpg"), str(synthetic / "tulips")]
    ckpt_path = str(trained_ckpt)
    one = predict(files, ckpt_path=ckpt_path, accelerator="cpu", batch_size=8, out=Path("one.csv"))
    assert one == 1  # a file could not be read
    command = [sys.executable, "-m", "flowers", "predict", *files, "--ckpt_path", ckpt_path]
    command += ["--accelerator", "cpu", "--batch_size", "8", "--devices", "2", "--out", "two.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "60 images classified, 1 could not be read" in done.stdout
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"broken.jpg", "one.csv", "two.csv"}


def test_a_photo_gets_a_line_with_its_three_most_probable_classes(trained_ckpt, synthetic, capsys):
    photo = str(min((synthetic / "roses").iterdir()))
    predict([photo], ckpt_path=str(trained_ckpt.parents[1]))
    line, last = capsys.readouterr().out.splitlines()
    answer = FlowerPredictor(trained_ckpt)(photo)
    names = sorted(answer.probabilities, key=answer.probabilities.__getitem__, reverse=True)
    classes = ", ".join(f"{name} {answer.probabilities[name]:.1%}" for name in names[:3])
    if answer.rejected:
        classes = f"not sure: {classes}"
    assert line == f"{photo}: {classes}"
    assert last == "1 image classified, 0 could not be read. See predictions.csv"


def test_more_than_twenty_photos_are_counted_by_class(trained_ckpt, synthetic, capsys):
    predict([str(synthetic / "roses")], ckpt_path=str(trained_ckpt))
    *lines, last = capsys.readouterr().out.splitlines()
    counts = Counter()
    for row in read_table("predictions.csv"):
        name = "not sure" if row["rejected"] == "True" else row["predicted"]
        counts[name] += 1
    printed = [line.split(maxsplit=1) for line in lines if line[0] == " "]
    assert printed == [[str(count), name] for name, count in counts.most_common()]
    assert last.startswith("30 images classified")


def test_an_unreadable_file_is_a_row_with_its_error(trained_ckpt, synthetic, tmp_path, capsys):
    folder = tmp_path / "photos" / "inside"
    folder.mkdir(parents=True)
    photos = sorted((synthetic / "tulips").iterdir())[:3]
    for file in photos:
        shutil.copy(file, folder)
    (folder / "0000-broken.jpg").write_bytes(photos[0].read_bytes()[:200])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(photos[0].read_bytes())
    sheet = tmp_path / "sheet.png"
    status = predict([str(tmp_path / "photos")], ckpt_path=str(trained_ckpt), contact_sheet=sheet)
    assert status == 1
    printed = capsys.readouterr().out
    assert "3 images classified, 1 could not be read" in printed
    assert f"{folder / '0000-broken.jpg'}: cannot be read" in printed
    rows = read_table("predictions.csv")
    names = sorted(Path(row["path"]).name for row in rows)
    assert names == ["0000-broken.jpg", *(file.name for file in photos)]
    [unreadable] = [row for row in rows if row["error"]]
    assert unreadable["path"].endswith("0000-broken.jpg")
    assert unreadable["predicted"] == ""
    assert unreadable["tulips"] == ""
    assert len(read_predictions("predictions.csv", needs_labels=False).paths) == 3
    with pytest.raises(ValueError, match="expected a label in each row"):
        read_predictions("predictions.csv")
    with Image.open(sheet) as opened:
        assert len(opened.convert("RGB").getcolors(10_000_000)) > 100


def test_names_reach_the_terminal_and_a_spreadsheet_as_text(
    trained_ckpt, synthetic, tmp_path, capsys
):
    photo = min((synthetic / "roses").iterdir())
    names = ["+1\n\x1b[31m.png", "-broken\x1b[2J.png", "=1+1.png"]
    for name in names:
        shutil.copy(photo, name)
    Path(names[1]).write_bytes(b"no image")
    sheet = Path("sheet.png")
    assert predict(names, ckpt_path=str(trained_ckpt), contact_sheet=sheet) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"+1\n\x1b[31m.png: " in printed
    assert r"-broken\x1b[2J.png: cannot be read" in printed
    assert [row["path"] for row in read_table("predictions.csv")] == [f"'{name}" for name in names]
    read = read_predictions("predictions.csv", needs_labels=False)
    assert list(read.paths) == [names[0], names[2]]


@pytest.mark.slow
def test_a_killed_predict_leaves_nothing_after_the_next_start(trained_ckpt, synthetic, tmp_path):
    photo = tmp_path / "photo.png"
    shutil.copy(min((synthetic / "roses").iterdir()), photo)
    command = [sys.executable, "-m", "flowers", "predict", str(synthetic)]
    command += ["--ckpt_path", str(trained_ckpt), "--batch_size", "1"]
    with subprocess.Popen(command) as process:
        while not [*tmp_path.glob(".unfinished-*/0.csv")]:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    [left] = tmp_path.glob(".unfinished-*")
    os.utime(left, (0, 0))  # newer folders may belong to a process that is starting
    assert predict([str(photo)], ckpt_path=str(trained_ckpt)) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"photo.png", "predictions.csv"}


def test_ignored_files_of_a_folder_are_counted_in_one_line(
    trained_ckpt, synthetic, tmp_path, capsys
):
    folder = tmp_path / "photos"
    (folder / "phone").mkdir(parents=True)
    photo = min((synthetic / "roses").iterdir())
    for name in ("1.jpe", "2.JFIF", "3.heic", "4.JPG_large"):
        shutil.copy(photo, folder / "phone" / name)
    shutil.copytree(folder / "phone", folder / "lightning_logs")
    (folder / "LICENSE.txt").touch()
    assert predict([str(folder)], ckpt_path=str(trained_ckpt)) == 0
    line, *_, result = capsys.readouterr().out.splitlines()
    assert line.startswith("2 files are ignored: name does not end in .jpg, ")
    assert "(.heic 1, .JPG_large 1)" in line
    assert "pillow-heif" in line
    assert result.startswith("2 images classified, 0 could not be read")


@pytest.mark.parametrize("name", ["predictions.csv", "sheet.png"])
def test_a_file_made_during_the_prediction_is_not_overwritten(
    name, trained_ckpt, synthetic, monkeypatch, capsys
):
    stream = FlowerPredictor.stream

    def interrupted(self, images):
        answers = stream(self, images)
        yield next(answers)
        Path(name).write_text("mine")
        yield from answers

    monkeypatch.setattr(FlowerPredictor, "stream", interrupted)
    files = [str(file) for file in sorted((synthetic / "tulips").iterdir())[:3]]
    assert predict(files, ckpt_path=str(trained_ckpt), contact_sheet=Path("sheet.png")) == 0
    assert Path(name).read_text() == "mine"
    written = name.replace(".", "-2.")
    assert {file.name for file in Path().iterdir()} == {"predictions.csv", "sheet.png", written}
    assert written in capsys.readouterr().out
    [table] = [file for file in Path().glob("predictions*.csv") if file.name != name]
    assert [row["path"] for row in read_table(table)] == files


def test_photos_may_be_given_as_files_folders_and_patterns(synthetic, trained_ckpt, tmp_path):
    daisy = str(synthetic / "daisy" / "0001.jpg")
    pattern = f"{synthetic}/r*/000*.jpg"
    assert predict([pattern, daisy, "nowhere.jpg"], ckpt_path=str(trained_ckpt)) == 1
    roses = [str(file) for file in sorted(synthetic.glob("r*/000*.jpg"))]
    paths = [row["path"] for row in read_table("predictions.csv")]
    assert paths == [*roses, daisy, "nowhere.jpg"]
    with pytest.raises(FileNotFoundError, match=r"photos nowhere: expected a file, a folder"):
        predict(["nowhere"], ckpt_path=str(trained_ckpt))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"photos empty: expected images"):
        predict(["empty"], ckpt_path=str(trained_ckpt))


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--out", "."], ValueError, r"--out \.: expected the name of a CSV file"),
        (["--contact_sheet", "sheet.csv"], ValueError, r"--contact_sheet sheet\.csv: expected"),
        (["--accelerator", "abacus"], SystemExit, "2"),
        (["--devices", "x"], ValueError, r"--devices x: expected devices of this machine"),
        (["--batch_size", "0"], ValueError, "--batch_size: expected 1 or more, got 0"),
    ],
)
def test_an_incorrect_option_is_named_before_any_work(
    words, error, message, trained_ckpt, synthetic
):
    shutil.copy(min((synthetic / "roses").iterdir()), "photo.jpg")
    with pytest.raises(error, match=message):
        run_function(predict, ["photo.jpg", "--ckpt_path", str(trained_ckpt), *words])
    assert [file.name for file in Path.cwd().iterdir()] == ["photo.jpg"]
