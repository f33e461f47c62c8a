"""The report of a test, and the metrics that are printed even if it cannot be written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from flowers import runtime
from flowers.__main__ import main
from flowers.cli import training

NAMES = {"report.html", "report.json", "report.md", "predictions.csv", "figures"}


@pytest.mark.usefixtures("figures")
def test_a_report_is_written_into_the_run_folder_and_a_second_one_gets_a_number(
    finished_run, tmp_path
):
    results = shutil.ignore_patterns("report*", "predictions*", "figures*")
    run = shutil.copytree(finished_run, tmp_path / "run", ignore=results)
    best = run / "checkpoints" / "best.ckpt"
    metrics = training.main(["test", "--ckpt_path", str(best)]).trainer.callback_metrics
    names = {"report.html", "report.json", "report.md", "predictions.csv"}
    assert names <= {path.name for path in run.iterdir()}
    report = json.loads((run / "report.json").read_text())
    assert report["accuracy"] == pytest.approx(float(metrics["test/acc"]))
    assert report["log_loss"] == pytest.approx(float(metrics["test/loss"]), abs=1e-5)
    calibration = torch.load(best, weights_only=True)["calibration"]
    assert report["temperature"] == calibration["temperature"]
    assert report["details"]["Data"]["test"] == "15 images"
    assert report["details"]["Training"]["duration"].endswith(" min")
    config = report["details"]["Configuration of the training"]["config"]
    assert config.startswith("seed_everything")
    assert ": null" not in config
    # Among the figures are the training curves; 15 images are too few for the reliability.
    page = (run / "report.html").read_text()
    assert page.count("data:image/svg+xml") == 5
    assert "<td>network</td><td>CNNTask, widths" in page
    assert "crops of" in page
    figures = {file.name for file in (run / "figures").iterdir()}
    assert {"confusion_matrix.png", "training.png"} <= figures
    assert len(figures) == 5
    num_mistakes = report["images"] - report["correct"]
    num_examples = min(8, num_mistakes) + min(8, report["correct"])
    num_issues = len(report["label_issues"])
    assert page.count('<div class="card">') == num_examples + num_issues
    # The photo, and its Grad-CAM overlay.
    assert page.count("data:image/jpeg") == 2 * num_examples + num_issues
    assert page.count('<label class="switch">') == num_examples
    before = {name: (run / name).read_bytes() for name in names}
    training.main(["test", "--ckpt_path", str(best), "--report.num_examples", "0"])
    for name, content in before.items():
        assert (run / name).read_bytes() == content
    second = {"report-2.html", "predictions-2.csv", "figures-2"}
    assert second <= {path.name for path in run.iterdir()}


def test_a_mislabelled_training_image_is_the_first_to_check(fit_small, tmp_path):
    root = tmp_path / "photos"
    for channel, name in enumerate(("red", "green")):
        for number in range(32):
            split = {0: "test", 1: "val"}.get(number % 8, "train")
            pixels = np.zeros((3, 4, 3), np.uint8)
            pixels[:, :, channel] = np.random.default_rng([channel, number]).integers(
                256, size=(3, 4)
            )
            file = root / split / name / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).resize((40, 30)).save(file)
    (root / "train" / "green" / "2.png").rename(root / "train" / "red" / "other.png")
    fit_small(tmp_path, root, "--data.batch_size", "8")
    run = tmp_path / "lightning_logs" / "version_0"
    best = str(run / "checkpoints" / "best.ckpt")
    training.main(["test", "--ckpt_path", best])
    issues = json.loads((run / "report.json").read_text())["label_issues"]
    assert issues[0]["path"] == "train/red/other.png"
    assert (issues[0]["label"], issues[0]["suggested"]) == ("red", "green")
    assert issues[0]["label_prob"] < 0.5
    page = (run / "report.html").read_text()
    assert f'<a href="{(root / issues[0]["path"]).as_uri()}"><img' in page
    training.main(["test", "--ckpt_path", best, "--report.num_label_issues", "0"])
    assert "Training images to check" in page
    assert "Training images to check" not in (run / "report-2.html").read_text()


class MakeReport(Callback):
    """Writes a file with the name of the report while the test runs."""

    def on_test_start(self, trainer, pl_module):
        Path("new/reports").mkdir(parents=True)
        Path("new/reports/report.md").write_text("mine")


@pytest.fixture
def evaluate(synthetic, trained_run, tmp_path, monkeypatch, capsys):
    """Return a function that tests a checkpoint with some options; it returns status and output."""
    # It would set the number of threads for the following tests, too.
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    (tmp_path / "run").mkdir()
    shutil.copy(trained_run / "checkpoints" / "best.ckpt", tmp_path / "run")

    def run(*options):
        words = ["--ckpt_path", str(tmp_path / "run" / "best.ckpt"), "--data.root", str(synthetic)]
        words += ["--trainer.accelerator", "cpu", "--report.num_examples", "0"]
        status = main(["test", *words, *options])
        return status, capsys.readouterr()

    return run


def test_the_metrics_are_printed_even_if_the_report_cannot_be_written(evaluate, tmp_path):
    (tmp_path / "file").touch()
    status, printed = evaluate("--report.folder", "file/reports")
    assert status == 1
    assert "test/acc: " in printed.out
    assert "test/loss: " in printed.out
    [line] = [line for line in printed.err.splitlines() if line.startswith("flowers: ")]
    assert "--report.folder: expected a folder that can be written, got file/reports" in line
    assert "Traceback" not in printed.err
    assert not [file for file in tmp_path.rglob("*") if file.name in NAMES]


@pytest.mark.filterwarnings("ignore:`")
def test_a_report_says_that_the_data_are_not_those_of_the_training(evaluate, synthetic, tmp_path):
    shutil.copytree(synthetic, tmp_path / "photos")
    next((tmp_path / "photos" / "daisy").iterdir()).unlink()
    status, _ = evaluate("--data.root", str(tmp_path / "photos"))
    assert status == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert "contains images or labels other than" in report["details"]["Data"]["warning 1"]
    assert "contains images or labels other than" in (tmp_path / "run" / "report.html").read_text()


def test_a_report_does_not_overwrite_a_file_made_during_the_test(evaluate, tmp_path):
    status, printed = evaluate(
        "--report.folder", "new/reports", "--trainer.callbacks+", f"{__name__}.MakeReport"
    )
    assert status == 0
    assert (tmp_path / "new" / "reports" / "report.md").read_text() == "mine"
    numbered = {"report-2.html", "report-2.json", "report-2.md", "predictions-2.csv", "figures-2"}
    assert {file.name for file in (tmp_path / "new" / "reports").iterdir()} == numbered | {
        "report.md"
    }
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["best.ckpt"]
    assert printed.out.index("test/acc: ") < printed.out.index(
        "Not overwritten: report.md. Written instead: report-2"
    )
