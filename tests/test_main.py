"""The door: ``python -m flowers``."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from flowers import cli, startup
from flowers.__main__ import VERBS, main


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = "import sys; from flowers.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert f"\n  {verb} " in run.stdout


@pytest.mark.parametrize("args", [["--config", "configs/cnn.yaml", "fit"], ["fitt"], ["--data.root", "x"]])
def test_the_verb_comes_first(args, capsys):
    assert main(args) == 2
    said = capsys.readouterr().err
    assert repr(args[0]) in said
    assert ", ".join(VERBS) in said


def test_an_error_of_the_users_is_one_message_and_a_bug_keeps_its_traceback(monkeypatch, capsys, drawn):
    monkeypatch.setattr(startup, "prepare", lambda: None)
    assert main(["test", "--ckpt_path", "nowhere.ckpt"]) == 1
    assert capsys.readouterr().err.startswith("flowers: --ckpt_path nowhere.ckpt: expected a checkpoint file")

    assert main(["fit", "--model.lr", "-1", "--data.root", str(drawn)]) == 1
    assert capsys.readouterr().err.endswith("flowers: --model.lr: expected a number above 0, got -1.0\n")
    assert main(["fit", "--model", "TransferTask", "--model.arch", "resnet19", "--data.root", str(drawn)]) == 1
    assert "flowers: --model.arch: expected one of alexnet" in capsys.readouterr().err

    def bug(args):
        raise KeyError("bug")

    monkeypatch.setattr(cli, "main", bug)
    with pytest.raises(KeyError, match="bug"):
        main(["fit"])


def test_the_command_as_users_type_it(drawn, tmp_path):
    args = ["fit", "--data.root", str(drawn), "--data.image_size", "32", "--data.crop_size", "24"]
    small = ["--model.widths", "[8,16]", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
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
    with pytest.raises(SystemExit, match=r"do not fit together.*nms.*pip install --force-reinstall torch torchvision"):
        startup.prepare()


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("x", 4)])
def test_the_threads_follow_affinity_and_control_group(quota, cores, monkeypatch, tmp_path):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(startup, "_CPU_MAX", file)
    monkeypatch.setattr(startup.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert startup.num_allowed_cores() == cores


def test_every_verb_is_one_of_lightnings_or_has_a_home_of_its_own():
    assert set(VERBS) == {*cli.FlowersCLI.subcommands(), "audit", "calibrate", "compare", "export"}
