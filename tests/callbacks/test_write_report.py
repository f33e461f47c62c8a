"""A report that cannot be written costs no number."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lightning.pytorch import Callback

from flowers import runtime
from flowers.__main__ import main

NAMES = {"report.html", "report.json", "report.md", "predictions.csv", "figures"}


class LoseRunFolder(Callback):
    """Puts a file in the place of the run folder when the test is over."""

    def teardown(self, trainer, pl_module, stage):
        run = Path(trainer.ckpt_path).parent
        run.rename(run.with_name("moved"))
        run.touch()


class MakeReport(Callback):
    """Writes a file with the name of the report while the test runs."""

    def on_test_start(self, trainer, pl_module):
        Path("new/reports").mkdir(parents=True)
        Path("new/reports/report.md").write_text("mine")


@pytest.fixture
def evaluate(synthetic, trained_run, tmp_path, monkeypatch, capsys):
    """Return a function that tests a checkpoint with some options; it returns status and output."""
    monkeypatch.setattr(
        runtime, "prepare", lambda: None
    )  # it sets threads, for the tests that follow too
    (tmp_path / "run").mkdir()
    shutil.copy(trained_run / "checkpoints" / "best.ckpt", tmp_path / "run")

    def run(*options):
        words = [
            "test",
            "--ckpt_path",
            str(tmp_path / "run" / "best.ckpt"),
            "--data.root",
            str(synthetic),
        ]
        status = main(
            [*words, "--trainer.accelerator", "cpu", "--report.num_examples", "0", *options]
        )
        return status, capsys.readouterr()

    return run


def test_a_report_that_cannot_be_written_costs_no_number(evaluate, tmp_path):
    status, printed = evaluate("--trainer.callbacks+", f"{__name__}.LoseRunFolder")
    assert status == 1
    assert "test/acc: " in printed.out
    assert "test/loss" in printed.out  # Lightning's table
    [line] = [line for line in printed.err.splitlines() if line.startswith("flowers: ")]
    assert f"--report.folder: expected a folder that can be written, got {tmp_path / 'run'}" in line
    assert "Traceback" not in printed.err
    assert not [file for file in tmp_path.rglob("*") if file.name in NAMES]


def test_a_report_in_another_folder_overwrites_no_file_made_there_meanwhile(evaluate, tmp_path):
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
