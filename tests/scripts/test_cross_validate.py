"""The script, with its processes run in this one."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from flowers import cli
from flowers.data import FlowersDataModule
from flowers.evaluation import read_predictions, scores

SCRIPT = Path(__file__).parents[2] / "scripts" / "cross_validate.py"


@pytest.fixture
def start(drawn, tmp_path, monkeypatch):
    """Return a function that starts the script and returns the verbs it ran; it can be interrupted at one of them."""
    (tmp_path / "small.yaml").write_text("{trainer: {max_epochs: 2, log_every_n_steps: 1, accelerator: cpu}}")
    small = ["--model.widths", "[8,16]", "--data.image_size", "32", "--data.crop_size", "24"]
    command = ["--config", "small.yaml", "--folds", "2", "--out", "cv", "--data.root", str(drawn), *small]

    def run(*options, interrupt_at=None):
        ran = []

        def in_this_process(words, *, check):
            if len(ran) == interrupt_at:
                raise KeyboardInterrupt
            assert words[:3] == [sys.executable, "-m", "flowers"]
            ran.append(words[3:])
            with suppress(SystemExit):  # a run that is finished
                cli.main(words[3:])

        monkeypatch.setattr(subprocess, "run", in_this_process)
        monkeypatch.setattr(sys, "argv", ["cross_validate.py", *command, *options])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return ran

    return run


def newest(folder: str, name: str) -> Path:
    return sorted(Path(folder).glob(f"lightning_logs/version_*/checkpoints/{name}"))[-1]


def test_a_training_that_was_cut_off_goes_on_and_one_that_had_saved_nothing_begins_anew(start):
    with pytest.raises(SystemExit, match="Interrupted"):
        start("--seeds", "1", interrupt_at=1)
    folder = Path("cv/seed_0-fold_0")
    (folder / "trained").unlink()  # as if it had been killed in the last epoch
    [again, *_] = start("--seeds", "1")
    assert again[:2] == ["fit", "--ckpt_path"]
    assert again[2].endswith("seed_0-fold_0/lightning_logs/version_0/checkpoints/last.ckpt")
    (folder / "trained").unlink()
    (folder / "predictions.csv").unlink()
    newest(str(folder), "last.ckpt").unlink()  # killed between its first two checkpoints
    fit, predict = start("--seeds", "1")
    assert "--ckpt_path" not in fit
    assert predict[2].endswith("version_1/checkpoints/best.ckpt")


def test_a_start_that_trained_nothing_does_not_bind_the_settings(start):
    with pytest.raises(SystemExit):
        start("--seeds", "1", "--model.lrr", "0.1")
    assert len(start("--seeds", "1")) == 4


def test_every_image_is_tested_once_per_seed_and_an_interruption_costs_nothing(start, drawn, capsys):
    with pytest.raises(SystemExit, match="Interrupted"):
        start("--seeds", "1", interrupt_at=3)  # the second fold was trained, but not yet asked
    assert not Path("cv/summary.md").exists()
    best = newest("cv/seed_0-fold_1", "best.ckpt").read_bytes()
    assert [words[0] for words in start("--seeds", "1")] == ["predict"]
    assert newest("cv/seed_0-fold_1", "best.ckpt").read_bytes() == best
    printed = capsys.readouterr().out
    assert "2 folds, 1 seed, 150 out-of-fold predictions." in printed

    pooled = read_predictions("cv/predictions.csv")
    assert sorted(pooled.paths) == sorted(FlowersDataModule(str(drawn)).index.paths)
    parts = [scores(read_predictions(f"cv/seed_0-fold_{fold}/predictions.csv"))["accuracy"] for fold in range(2)]
    summary = json.loads(Path("cv/summary.json").read_text())
    assert summary["scores"]["accuracy"]["mean"] == pytest.approx(sum(parts) / 2)
    assert sum(map(sum, summary["confusion"])) == 150

    Path("cv/summary.json").write_text("mine")
    more = start("--seeds", "2")  # another seed is added to what is there
    assert [words[0] for words in more] == ["fit", "predict"] * 2
    assert "300 out-of-fold predictions" in Path("cv/summary.md").read_text()
    assert Path("cv/summary.json").read_text() == "mine"
    assert sum(map(sum, json.loads(Path("cv/summary-2.json").read_text())["confusion"])) == 300
    Path("cv/summary.md").write_text("mine too")
    assert not start("--seeds", "2")
    names = {"summary.md", "summary-2.md", "summary.json", "summary-2.json", "predictions.csv", "settings.json"}
    assert {file.name for file in Path("cv").glob("*.*") if not file.name.startswith(".")} == names
    assert [Path(f"cv/summary.{suffix}").read_text() for suffix in ("md", "json")] == ["mine too", "mine"]
    with pytest.raises(SystemExit):
        start("--seeds", "2", "--model.lr", "0.1")
    assert "--out cv: a cross-validation with other settings" in capsys.readouterr().err


def test_a_second_one_in_the_same_folder_is_refused(start, capsys):
    Path("cv").mkdir()
    with FileLock("cv/.lock"), pytest.raises(SystemExit):
        start()
    assert "--out cv: another cross-validation writes into it" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{} // an editor's", "{}", "[1]"])
def test_settings_of_another_program_stay(content, start, capsys):
    Path("cv").mkdir()
    Path("cv/settings.json").write_text(content)
    with pytest.raises(SystemExit):
        start()
    assert "--out cv: expected a new folder" in capsys.readouterr().err
    assert Path("cv/settings.json").read_text() == content


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "1"], "at least 2 folds"),
        (["--data.fold", "1"], "no --data.fold"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: expected a file"),
        (["--out", "mine"], "--out mine: expected a new folder"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(start, options, said, capsys):
    Path("mine").mkdir()
    Path("mine/photo.jpg").touch()
    with pytest.raises(SystemExit):
        start(*options)
    assert said in capsys.readouterr().err
    assert [path.name for path in Path("mine").iterdir()] == ["photo.jpg"]
