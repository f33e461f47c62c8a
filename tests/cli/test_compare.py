from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from flowers import evaluation
from flowers.cli import compare
from flowers.evaluation import PredictionTable
from flowers.evaluation.predictions import predictions_csv

# Each level has twice the values of the level before.
ALIASES = b"a0: &a0 {x: 1, y: 2}\n"
for level in range(1, 40):
    ALIASES += b"a%d: &a%d {x: *a%d, y: *a%d}\n" % (level, level, level - 1, level - 1)


def make_run(folder, is_correct, *, config="model: {lr: 1}"):
    """Write a run folder whose predictions are correct or incorrect as given."""
    labels = np.array([0, 1] * (len(is_correct) // 2))
    predicted = np.where(is_correct, labels, 1 - labels)
    probs = np.array([[0.9, 0.1], [0.1, 0.9]])[predicted]
    paths = tuple(f"{number}.jpg" for number in range(len(labels)))
    table = PredictionTable(("a", "b"), paths, labels, probs)
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text(predictions_csv(table), newline="")
    (folder / "config.yaml").write_text(config)
    with SummaryWriter(str(folder)) as writer:
        for epoch in range(3):
            writer.add_scalar("epoch", epoch, epoch)
            writer.add_scalar("val/acc", epoch / 4, epoch)
    return str(folder)


def test_the_page_has_the_numbers_of_all_runs(tmp_path, capsys):
    good = make_run(tmp_path / "runs" / "good", [True] * 40)
    bad = make_run(tmp_path / "runs" / "bad", [True] * 30 + [False] * 10, config="model: {lr: 2}")
    compare.compare([good, bad])
    printed = capsys.readouterr().out
    assert "good is better, p = 0.002" in printed
    assert re.search(r"^ model\.lr +1 +2$", printed, re.MULTILINE)
    assert "|" not in printed
    made = tmp_path / "lightning_logs" / "compare_0"
    assert "| model.lr | 1 | 2 |" in (made / "compare.md").read_text()
    assert {file.name for file in made.iterdir()} == {
        "compare.html",
        "compare.json",
        "compare.md",
        "validation_accuracy.png",
    }
    assert (
        json.loads((made / "compare.json").read_text())["runs"]["good"]["best_validation_accuracy"]
        == 0.5
    )
    with pytest.raises(FileExistsError, match="--out"):
        compare.compare([good, bad], out=made)


def test_the_page_shows_the_photos_that_two_runs_classify_differently(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8), "red").save(photos / "39.jpg")
    config = f"data: {{root: {photos}}}"
    good = make_run(tmp_path / "runs" / "good", [True] * 40, config=config)
    bad = make_run(tmp_path / "runs" / "bad", [True] * 38 + [False] * 2, config=config)
    compare.compare([good, bad], out=tmp_path / "out")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count('<div class="card">') == 2  # 38.jpg is missing: its name is shown
    assert page.count("data:image/jpeg") == 1
    assert f'<a href="{(photos / "39.jpg").as_uri()}">' in page
    assert "Confusion matrices" in page


def test_a_folder_made_during_the_comparison_is_not_overwritten(tmp_path, monkeypatch, capsys):
    runs = [make_run(tmp_path / "runs" / name, [True] * 4) for name in ("one", "two")]
    make_files = evaluation.comparison_files

    def comparison_files(*args):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "compare.md").write_text("mine")
        return make_files(*args)

    monkeypatch.setattr(evaluation, "comparison_files", comparison_files)
    compare.compare(runs, out=Path("out"))
    assert [(file.name, file.read_text()) for file in (tmp_path / "out").iterdir()] == [
        ("compare.md", "mine")
    ]
    assert "| one | " in (tmp_path / "out-2" / "compare.md").read_text()
    assert "See out-2/compare.html" in capsys.readouterr().out


def test_the_newest_test_of_a_run_is_used_and_named(tmp_path, capsys):
    first = make_run(tmp_path / "x", [True] * 40)
    second = make_run(tmp_path / "y", [False] * 40)
    for name in (
        "predictions-2.csv",
        "predictions-10.csv",
        "predictions_tta.csv",
        "predictions_val.csv",
    ):
        (tmp_path / "y" / name).write_text((tmp_path / "y" / "predictions.csv").read_text())
    (tmp_path / "y" / "predictions-10.csv").write_text(
        (tmp_path / "x" / "predictions.csv").read_text()
    )
    compare.compare([first, second])
    printed = capsys.readouterr().out
    assert "y was tested 3 times: predictions-10.csv, the newest," in printed
    assert "no significant difference, p = 1" in printed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", b"a: [", "config.yaml: expected a configuration"),
        ("config.yaml", b"\xff\xfe\x00", "config.yaml: expected a configuration"),
        ("config.yaml", ALIASES, "config.yaml: expected a configuration, .* more than 20 aliases"),
        ("predictions.csv", b"path\n", "predictions.csv: expected the columns"),
        ("manifest.csv", b"path\n", "manifest.csv: expected the columns"),
        ("summary.json", b"{}", "got a cross-validation; see its summary.md"),
    ],
)
def test_a_damaged_run_is_named(name, content, message, tmp_path):
    first = make_run(tmp_path / "x", [True] * 4)
    second = make_run(tmp_path / "y", [True] * 4)
    (tmp_path / "y" / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        compare.compare([first, second])


@pytest.mark.parametrize("content", ["", "{}", '{"details": {"Test": {}}}', "[1]"])
def test_a_report_that_names_no_checkpoint_is_accepted(content, tmp_path, capsys):
    first = make_run(tmp_path / "x", [True] * 4)
    second = make_run(tmp_path / "y", [True] * 4)
    (tmp_path / "x" / "report.json").write_text(content)
    report = '{"details": {"Test": {"checkpoint": "best.ckpt"}}}'
    (tmp_path / "y" / "report.json").write_text(report)
    compare.compare([first, second])
    printed = capsys.readouterr().out
    assert re.search(r"^ x +4 ", printed, re.MULTILINE)
    assert re.search(r"^ y +best\.ckpt +4 ", printed, re.MULTILINE)


def test_a_run_without_curves_is_reported_and_links_keep_their_names(tmp_path, capsys):
    make_run(tmp_path / "x", [True] * 4)
    for file in (tmp_path / "x").glob("events*"):
        file.write_bytes(file.read_bytes()[:20])
    make_run(tmp_path / "y", [True] * 4)
    (tmp_path / "baseline").symlink_to("y")
    (tmp_path / "x" / "config.yaml").write_text("")
    compare.compare(["x", "baseline"])
    printed = capsys.readouterr().out
    assert "x: no curves can be read" in printed
    assert re.search(r"^ baseline +", printed, re.MULTILINE)
    assert "Options that differ" not in printed


def test_a_run_without_a_test_is_named_with_the_command_that_tests_it(tmp_path, capsys):
    make_run(tmp_path / "x", [True] * 4)
    untested = Path(make_run(tmp_path / "y", [True] * 4))
    (untested / "predictions.csv").unlink()
    compare.compare(["x", "y"])
    assert "y is not tested, run: python -m flowers test --ckpt_path y\n" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["x"], ["x", "x"], ["x", "./x"]])
def test_two_different_runs_are_needed(words, tmp_path):
    make_run(tmp_path / "x", [True] * 4)
    with pytest.raises(ValueError, match="runs: expected two or more different run folders"):
        compare.compare(words)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    make_run(tmp_path / "x", [True] * 4)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(ValueError, match=f"{name}: expected a run folder, such as"):
            compare.compare(["x", name])
