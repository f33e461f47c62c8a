"""``python -m flowers cross_validate``, whose processes run in this one."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from filelock import FileLock

from flowers import runtime
from flowers.__main__ import main, run_function
from flowers.cli import training
from flowers.cli.cross_validate import cross_validate
from flowers.data import FlowersDataModule
from flowers.evaluation import read_predictions, scores


@pytest.fixture
def start(synthetic, tmp_path, monkeypatch):
    """Return a function that runs the command, and may be interrupted in a run."""
    (tmp_path / "small.yaml").write_text(
        "{trainer: {max_epochs: 2, log_every_n_steps: 1, accelerator: cpu}}"
    )
    small = ["--model.widths", "[8,16]", "--data.image_size", "32", "--data.crop_size", "24"]
    command = ["--config", "small.yaml", "--data.root", str(synthetic), *small]
    command += ["--folds", "2", "--out", "cv"]

    run_process = subprocess.run

    def run(*options, interrupt_at=None):
        ran = []

        def in_this_process(words, **rest):
            if words[0] != sys.executable:
                return run_process(words, **rest)  # called by Python's platform module
            if len(ran) == interrupt_at:
                raise KeyboardInterrupt
            assert words[:3] == [sys.executable, "-m", "flowers"]
            ran.append(words[3:])
            try:
                training.main(words[3:])
            except SystemExit as error:
                if error.code:  # 0: the run is finished
                    raise subprocess.CalledProcessError(error.code, words) from error

        monkeypatch.setattr(subprocess, "run", in_this_process)
        run_function(cross_validate, [*command, *options])
        return ran

    return run


def newest(folder: str, name: str) -> Path:
    return sorted(Path(folder).glob(f"lightning_logs/version_*/checkpoints/{name}"))[-1]


@pytest.mark.slow
def test_an_interrupted_training_resumes_and_one_without_a_checkpoint_starts_again(start):
    with pytest.raises(KeyboardInterrupt):
        start("--seeds", "1", interrupt_at=1)
    folder = Path("cv/seed_0-fold_0")
    (folder / "trained").unlink()  # as if it had been killed in the last epoch
    [again, *_] = start("--seeds", "1")
    assert again[0] == "fit"
    assert [run.name for run in folder.glob("lightning_logs/*")] == ["version_0"]
    (folder / "trained").unlink()
    for file in folder.glob("*.*"):
        file.unlink()
    shutil.rmtree(folder / "figures")
    newest(
        str(folder), "last.ckpt"
    ).unlink()  # as if it had been killed between its first two checkpoints
    _, test = start("--seeds", "1")
    assert test[2].endswith("version_1")


def test_settings_may_change_until_a_training_has_started(start):
    with pytest.raises(SystemExit):
        start("--seeds", "1", "--model.lrr", "0.1")
    with pytest.raises(KeyboardInterrupt):
        start("--seeds", "1", interrupt_at=0)  # it is about to train with other settings


def test_every_image_is_tested_once_per_seed_even_after_an_interruption(start, synthetic, capsys):
    with pytest.raises(KeyboardInterrupt):
        start("--seeds", "1", interrupt_at=3)  # the second fold is trained, but not tested
    assert "Interrupted. The same command resumes from cv." in capsys.readouterr().err
    assert not Path("cv/summary.md").exists()
    best = newest("cv/seed_0-fold_1", "best.ckpt").read_bytes()
    assert [words[0] for words in start("--seeds", "1")] == ["test"]
    assert newest("cv/seed_0-fold_1", "best.ckpt").read_bytes() == best
    printed = capsys.readouterr().out
    assert "2 folds, 1 seed, 150 out-of-fold predictions." in printed

    pooled = read_predictions("cv/predictions.csv")
    assert sorted(pooled.paths) == sorted(FlowersDataModule(str(synthetic)).index.paths)
    parts = [
        scores(read_predictions(f"cv/seed_0-fold_{fold}/predictions.csv"))["accuracy"]
        for fold in range(2)
    ]
    summary = json.loads(Path("cv/summary.json").read_text())
    assert summary["scores"]["accuracy"]["mean"] == pytest.approx(sum(parts) / 2)
    assert sum(map(sum, summary["confusion"])) == 150

    Path("cv/summary.json").write_text("mine")
    more = start("--seeds", "2")  # another seed is added to what is there
    assert [words[0] for words in more] == ["fit", "test"] * 2
    assert "300 out-of-fold predictions" in Path("cv/summary.md").read_text()
    assert Path("cv/summary.json").read_text() == "mine"
    assert sum(map(sum, json.loads(Path("cv/summary-2.json").read_text())["confusion"])) == 300
    Path("cv/summary.md").write_text("mine too")
    assert not start("--seeds", "2")
    names = {
        "summary.md",
        "summary-2.md",
        "summary.json",
        "summary-2.json",
        "predictions.csv",
        "settings.json",
    }
    assert {file.name for file in Path("cv").glob("*.*") if not file.name.startswith(".")} == names
    assert [Path(f"cv/summary.{suffix}").read_text() for suffix in ("md", "json")] == [
        "mine too",
        "mine",
    ]
    with pytest.raises(ValueError, match="--out cv: a cross-validation with other settings"):
        start("--seeds", "2", "--model.lr", "0.1")


def test_a_second_cross_validation_in_the_same_folder_is_refused(start):
    Path("cv").mkdir()
    with (
        FileLock("cv/.lock"),
        pytest.raises(ValueError, match="--out cv: another cross-validation writes into this"),
    ):
        start()


@pytest.mark.parametrize("content", ["{} // an editor's", "{}", "[1]"])
def test_a_settings_file_of_another_program_is_not_overwritten(content, start):
    Path("cv").mkdir()
    Path("cv/settings.json").write_text(content)
    with pytest.raises(ValueError, match="--out cv: expected a new folder"):
        start()
    assert Path("cv/settings.json").read_text() == content


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds", "1"], "at least 2 folds"),
        (["--data.fold", "1"], "and no --data.folds or --data.fold"),
        (["--out", "mine"], "--out mine: expected a new folder"),
    ],
)
def test_an_incorrect_option_is_named_before_any_training(start, options, message):
    Path("mine").mkdir()
    Path("mine/photo.jpg").touch()
    with pytest.raises(ValueError, match=message):
        start(*options)
    assert [path.name for path in Path("mine").iterdir()] == ["photo.jpg"]


def test_a_missing_configuration_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        cross_validate(fit_options=["--config", "nowhere.yaml"])
    with pytest.raises(ValueError, match="--config: expected a configuration"):
        cross_validate()


def test_the_end_of_the_output_of_a_failed_run_is_printed(synthetic, tmp_path, monkeypatch, capsys):
    def in_this_process(words, stdout, stderr, check):
        assert stderr == subprocess.STDOUT
        assert check
        with (
            io.TextIOWrapper(stdout, write_through=True) as output,
            redirect_stdout(output),
            redirect_stderr(output),
        ):
            status = main(words[3:])
        if status:
            raise subprocess.CalledProcessError(status, words)

    # It would set the number of threads for the following tests, too.
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    monkeypatch.setattr(subprocess, "run", in_this_process)
    (tmp_path / "small.yaml").write_text("trainer: {max_epochs: 1}")
    options = ["--config", "small.yaml", "--data.root", str(synthetic), "--model.lr", "-1"]
    with pytest.raises(SystemExit) as ended:
        cross_validate(folds=2, fit_options=options)
    assert ended.value.code == 1
    message = capsys.readouterr().err
    assert "--model.lr: expected a number above 0, got -1.0" in message
    assert "log.txt" in message
