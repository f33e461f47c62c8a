"""The commands of ``python -m flowers``."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from lightning.pytorch.cli import LightningCLI

import flowers
from flowers import runtime
from flowers.__main__ import COMMANDS, LIGHTNING_COMMANDS, main, run_function
from flowers.cli import training


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from flowers.__main__ import main; "
        "main(['--help']); sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in COMMANDS:
        assert f"\n  {name} " in run.stdout


@pytest.mark.parametrize("args", [[], ["help"], ["-h"]])
def test_common_ways_to_ask_for_help_work(args, capsys):
    assert main(args) == 0
    assert "commands:" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flowers {version('flowers')}\n"


@pytest.mark.parametrize(
    ("args", "nearest"),
    [
        (["--config", "configs/cnn.yaml", "fit"], None),
        (["--data.root", "x"], None),
        (["fitt"], "fit"),
        (["train"], "fit"),
        (["classify"], "predict"),
        (["cross-validate"], "cross_validate"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest_one(args, nearest, capsys):
    assert main(args) == 2
    message = capsys.readouterr().err
    assert repr(args[0]) in message
    assert ", ".join(COMMANDS) in message
    assert ("did you mean" in message) == (nearest is not None)
    assert nearest is None or f"did you mean {nearest}?" in message


def test_fit_without_options_requests_a_folder_or_a_configuration(capsys, tmp_path):
    assert main(["fit"]) == 2
    message = capsys.readouterr().err
    assert "configs/quickstart.yaml" in message
    assert "--data.root DIR" in message
    assert not [*tmp_path.iterdir()]


def test_parameters_before_the_star_are_positional(capsys):
    def command(photos: list[str], *, size: int = 3, others: list[str] | None = None) -> int:
        """Do something.

        Args:
            photos: Files.
            size: In pixels.
            others: More files.
        """
        assert (photos, size, others) == (["a", "007"], 4, ["b", "c"])
        return 1

    assert run_function(command, ["a", "007", "--size", "4", "--others", "b", "c"]) == 1
    with pytest.raises(SystemExit):
        run_function(command, ["--help"])
    printed = capsys.readouterr().out
    for words in (
        "Do something.",
        "Files.",
        "In pixels. (type: whole number, default: 3)",
        "More files.",
    ):
        assert words in printed


def test_options_that_a_command_does_not_have_go_to_fit():
    def command(config: list[str], *, folds: int = 5, fit_options: list[str] | None = None) -> None:
        """Do something.

        Args:
            config: Files.
            folds: Parts.
            fit_options: Options of fit.
        """
        assert (config, folds) == (["a.yaml"], 2)
        assert fit_options == ["--data.root", "x", "--model.widths=[8]"]

    run_function(command, ["a.yaml", "--data.root", "x", "--folds", "2", "--model.widths=[8]"])


def test_an_incorrect_option_is_one_message_and_a_bug_keeps_its_traceback(
    monkeypatch, capsys, synthetic
):
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    assert main(["test", "--ckpt_path", "nowhere.ckpt"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("flowers: nowhere.ckpt: expected a checkpoint file")

    assert main(["fit", "--model.lr", "-1", "--data.root", str(synthetic)]) == 1
    assert capsys.readouterr().err.endswith(
        "flowers: --model.lr: expected a number above 0, got -1.0\n"
    )
    monkeypatch.setenv("FLOWERS_DEBUG", "1")
    assert main(["fit", "--model.lr", "-1", "--data.root", str(synthetic)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert message.endswith("flowers: --model.lr: expected a number above 0, got -1.0\n")
    monkeypatch.delenv("FLOWERS_DEBUG")
    transfer = ["--model", "TransferTask", "--model.arch", "resnet19"]
    assert main(["fit", *transfer, "--data.root", str(synthetic)]) == 1
    assert "flowers: --model.arch: expected one of alexnet" in capsys.readouterr().err

    def bug(args):
        raise KeyError("bug")

    monkeypatch.setattr(training, "main", bug)
    assert main(["fit", "--data.root", str(synthetic)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert message.endswith("KeyError: 'bug'\n")


@pytest.mark.parametrize(("rank", "status"), [("0", 130), ("1", 0)])
def test_ctrl_c_ends_with_status_130_and_does_not_fail_a_process_of_lightning(
    rank, status, monkeypatch, capsys, synthetic
):
    def interrupted():
        raise KeyboardInterrupt

    def interrupted_lightning(args):
        try:
            interrupted()
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning does

    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(runtime, "prepare", interrupted)
    assert main(["fit", "--data.root", str(synthetic)]) == status
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    monkeypatch.setattr(training, "main", interrupted_lightning)
    assert main(["fit", "--data.root", str(synthetic)]) == status
    assert capsys.readouterr().err == ""


def test_fit_in_a_process_of_its_own(synthetic, tmp_path):
    words = ["--data.root", str(synthetic), "--data.image_size", "32", "--data.crop_size", "24"]
    words += [
        "--model.widths",
        "[8,16]",
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    command = [sys.executable, "-m", "flowers", "fit", *words]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert "Best checkpoint  lightning_logs/version_0/checkpoints/best.ckpt" in run.stdout
    assert (tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt").exists()
    assert "Tip" not in run.stderr


def test_the_commands_of_lightning_are_in_the_table():
    assert COMMANDS.keys() & LightningCLI.subcommands().keys() > LIGHTNING_COMMANDS


def test_the_package_is_imported_without_torch():
    code = "import sys, flowers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    names = {"CNNTask", "FlowerPredictor", "FlowersDataModule", "TransferTask", "__version__"}
    assert names <= {*dir(flowers)}
    for name in flowers.__all__:
        assert isinstance(getattr(flowers, name), type)
    with pytest.raises(AttributeError, match="no attribute 'FlowersPredictor'"):
        _ = flowers.FlowersPredictor


def test_an_error_of_the_system_in_a_function_is_one_message_with_the_option(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    (tmp_path / "photos" / "a").mkdir(parents=True)
    assert main(["audit", "photos", "--predictions", "."]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
