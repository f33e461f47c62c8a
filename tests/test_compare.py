from __future__ import annotations

import json

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from flowers import compare
from flowers.evaluation import Predictions, predictions_csv


def make_run(folder, rights, *, config="model: {lr: 1}"):
    labels = [0, 1] * (len(rights) // 2)
    probs = [[0.9, 0.1] if (label == 0) == right else [0.1, 0.9] for label, right in zip(labels, rights, strict=True)]
    found = Predictions(("a", "b"), tuple(f"{i}.jpg" for i in range(len(labels))), np.array(labels), np.array(probs))
    folder.mkdir(parents=True)
    (folder / "predictions.csv").write_text(predictions_csv(found), newline="")
    (folder / "config.yaml").write_text(config)
    with SummaryWriter(str(folder)) as writer:
        for epoch in range(3):
            writer.add_scalar("epoch", epoch, epoch)
            writer.add_scalar("val/acc", epoch / 4, epoch)
    return str(folder)


def test_runs_are_put_beside_each_other(tmp_path, capsys):
    good = make_run(tmp_path / "runs" / "good", [True] * 40)
    bad = make_run(tmp_path / "runs" / "bad", [True] * 30 + [False] * 10, config="model: {lr: 2}")
    compare.main([good, bad])
    said = capsys.readouterr().out
    assert "good is better, p = 0.002" in said
    assert "| model.lr | 1 | 2 |" in said
    made = tmp_path / "lightning_logs" / "compare_0"
    assert {file.name for file in made.iterdir()} == {
        "compare.html",
        "compare.json",
        "compare.md",
        "validation_accuracy.png",
    }
    assert json.loads((made / "compare.json").read_text())["runs"]["good"]["best_validation_accuracy"] == 0.5
    with pytest.raises(FileExistsError, match="--out"):
        compare.main([good, bad, "--out", str(made)])


def test_the_newest_test_counts_and_is_named(tmp_path, capsys):
    first, second = make_run(tmp_path / "x", [True] * 40), make_run(tmp_path / "y", [True] * 40)
    (tmp_path / "y" / "predictions-2.csv").write_text((tmp_path / "x" / "predictions.csv").read_text())
    compare.main([first, second])
    assert "y was tested 2 times: predictions-2.csv is the newest" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["x"], ["x", "x"], ["x", "./x"]])
def test_two_different_runs_are_needed(words, tmp_path, capsys):
    make_run(tmp_path / "x", [True] * 4)
    with pytest.raises(SystemExit):
        compare.main(words)
    assert "RUN: expected two or more different run folders" in capsys.readouterr().err


def test_a_folder_that_is_no_runs_is_named(tmp_path):
    make_run(tmp_path / "x", [True] * 4)
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(ValueError, match=f"RUN {name}: expected a run folder"):
            compare.main(["x", name])
