from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import yaml

from flowers.callbacks import SaveRunConfig
from flowers.cli import training


def test_a_run_folder_holds_configuration_manifest_and_checkpoints(finished_run):
    names = {path.name for path in finished_run.iterdir()}
    assert names >= {"config.yaml", "manifest.csv", "checkpoints"}
    checkpoints = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert checkpoints == {"best.ckpt", "last.ckpt"}
    config = yaml.safe_load((finished_run / "config.yaml").read_text())
    assert config["model"]["init_args"]["widths"] == [8, 16]
    assert config["seed_everything"] == 0
    with (finished_run / "manifest.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 150


def test_another_configuration_gets_a_number_and_the_same_one_no_second_file(tmp_path):
    parser = SimpleNamespace(dump=lambda config, skip_none: config)
    trainer = SimpleNamespace(logger=SimpleNamespace(log_dir=str(tmp_path)), datamodule=None)
    for text in ("a", "a", "b", "c", "b", "a"):
        SaveRunConfig(parser, text).save_config(trainer, None, "fit")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "config.yaml": "a",
        "config-2.yaml": "b",
        "config-3.yaml": "c",
    }


def test_the_command_in_the_summary_works(fit_small, synthetic, tmp_path, capsys):
    run = fit_small(tmp_path, synthetic, "--trainer.max_epochs", "1")
    printed = capsys.readouterr().out
    best = run.trainer.checkpoint_callback
    assert f"Best epoch       {best.best_epoch} of 1 (counted from 0)\n" in printed
    assert f"{float(run.trainer.callback_metrics['val/acc']):.4f}" in printed
    command = next(line for line in printed.splitlines() if "python -m flowers test" in line)
    training.main(command.split("python -m flowers ")[1].split())


def test_a_checkpoint_finds_its_data_from_another_folder(
    fit_small, synthetic, tmp_path, monkeypatch
):
    (tmp_path / "photos").symlink_to(synthetic)
    fit_small(tmp_path, Path("photos"), "--trainer.max_epochs=1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    best = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
    run = training.main(["test", "--ckpt_path", str(best)])
    assert run.datamodule.index.root == tmp_path / "photos"
