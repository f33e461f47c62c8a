from __future__ import annotations

import sys

import pytest
import yaml

from flowers.cli import training
from flowers.cli.help import COMMON


@pytest.fixture
def print_help(monkeypatch, capsys):
    """Return a function that returns what a command line prints."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["flowers", *words])
        with pytest.raises(SystemExit, match="0"):
            training.main([*words])
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_help_fits_a_screen_and_shows_the_defaults(command, print_help):
    text = print_help(command, "--help")
    lines = text.splitlines()
    assert len(lines) <= 50
    assert max(len(line) for line in lines) <= 100
    assert text.startswith(f"usage: python -m flowers {command} ")
    by_option = {line.split()[0]: line for line in lines if line.startswith("  --")}
    names = {f"--{name}" for names in COMMON.values() for name in names}
    assert names <= by_option.keys()
    for option, default in {"--data.image_size": 192, "--early_stopping.patience": 15, "--model.lr": 0.002}.items():
        assert by_option[option].endswith(f"({default})")
    assert lines[-1] == f"All options: python -m flowers {command} --help all"


def test_every_option_of_the_help_is_an_option(print_help):
    everything = print_help("fit", "--help", "all")
    assert len(everything.splitlines()) > 300
    for names in COMMON.values():
        for name in names:
            assert f"--{name} " in everything, name


def test_the_help_shows_the_options_of_the_model_that_is_named(print_help, tmp_path):
    assert "--model.widths" in print_help("fit", "--help")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"model": {"class_path": "TransferTask"}}))
    for words in (["--model", "TransferTask"], ["--config", "own.yaml"]):
        text = print_help("fit", *words, "--help")
        assert "Model (--model TransferTask):" in text
        assert "--model.widths" not in text
        [arch] = [line for line in text.splitlines() if "--model.arch " in line]
        assert arch.endswith("(mobilenet_v2)")
