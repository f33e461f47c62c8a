"""The door: ``python -m flowers``."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

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
def test_help_is_what_people_try_first(args, capsys):
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
def test_another_word_gets_the_nearest_command(args, nearest, capsys):
    assert main(args) == 2
    message = capsys.readouterr().err
    assert repr(args[0]) in message
    assert ", ".join(COMMANDS) in message
    assert ("did you mean" in message) == (nearest is not None)
    assert nearest is None or f"did you mean {nearest}?" in message


def test_fit_alone_asks_for_a_folder_or_a_configuration(capsys, tmp_path):
    assert main(["fit"]) == 2
    message = capsys.readouterr().err
    assert "configs/quickstart.yaml" in message
    assert "--data.root DIR" in message
    assert not [*tmp_path.iterdir()]


def test_what_stands_before_the_star_is_positional(capsys):
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
    said = capsys.readouterr().out
    for words in ("Do something.", "Files.", "In pixels. (type: int, default: 3)", "More files."):
        assert words in said


def test_other_options_go_to_fit():
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


def test_an_error_of_the_users_is_one_message_and_a_bug_keeps_its_traceback(
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
    assert (
        main(
            [
                "fit",
                "--model",
                "TransferTask",
                "--model.arch",
                "resnet19",
                "--data.root",
                str(synthetic),
            ]
        )
        == 1
    )
    assert "flowers: --model.arch: expected one of alexnet" in capsys.readouterr().err

    def bug(args):
        raise KeyError("bug")

    monkeypatch.setattr(training, "main", bug)
    assert main(["fit", "--data.root", str(synthetic)]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert message.endswith("KeyError: 'bug'\n")


def test_the_command_as_users_type_it(synthetic, tmp_path):
    args = [
        "fit",
        "--data.root",
        str(synthetic),
        "--data.image_size",
        "32",
        "--data.crop_size",
        "24",
    ]
    small = [
        "--model.widths",
        "[8,16]",
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    command = [sys.executable, "-m", "flowers", *args, *small]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert "Best checkpoint  lightning_logs/version_0/checkpoints/best.ckpt" in run.stdout
    assert (tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt").exists()
    assert "Tip" not in run.stderr


def test_mismatched_builds_are_named_before_lightning_is_imported(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchvision":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # the other tests run on one
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        SystemExit,
        match=r"do not match.*nms.*pip install --force-reinstall torch torchvision",
    ):
        runtime.prepare()


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("x", 4)]
)
def test_the_threads_follow_affinity_and_control_group(quota, cores, monkeypatch, tmp_path):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(runtime, "_CPU_MAX", file)
    monkeypatch.setattr(runtime.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert runtime.num_allowed_cores() == cores


def test_the_commands_of_lightning_are_those_of_the_table():
    assert set(training.FlowersCLI.subcommands()) == LIGHTNING_COMMANDS < COMMANDS.keys()
