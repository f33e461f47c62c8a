"""The README's commands and options exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from flowers import cli, predict
from flowers.__main__ import VERBS
from flowers.tasks import CNNTask, TransferTask

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_names_a_verb_and_files_that_exist():
    commands = re.findall(r"python -m flowers (\w+)(.*)", README)
    assert len(commands) >= 8
    for verb, rest in commands:
        assert verb in VERBS
        for config in re.findall(r"--config ([\w./]+)", rest):
            assert (ROOT / config).is_file(), config
    for script in re.findall(r"python (scripts/\w+\.py)", README):
        assert (ROOT / script).is_file(), script


def test_every_option_exists(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    known = capsys.readouterr().out
    tasks = (CNNTask(["a", "b"], widths=(8,)), TransferTask(["a", "b"], weights="none"))
    hparams = {name for task in tasks for name in task.hparams}
    options = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)+)", README))
    assert len(options) > 10
    for option in options:
        if option.startswith("trainer.strategy."):
            continue  # of the class that is named before
        group, _, name = option.partition(".")
        known_to_model = name in hparams or name == "help"
        assert known_to_model if group == "model" else f"--{option}" in known, option


def test_every_option_of_a_strategy_exists(capsys):
    options = re.findall(r"--trainer\.strategy(?:\.[a-z_]+)? [^ `]+", README)
    assert len(options) == 3
    with pytest.raises(SystemExit):
        cli.main(["fit", *" ".join(options).split(), "--print_config"])
    known = capsys.readouterr().out
    for _, _, setting in (option.partition("strategy.") for option in options):
        assert setting.replace(" ", ": ") in known


def test_ci_runs_the_readmes_test_command_as_it_stands():
    sed = next(line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("command="))
    out = subprocess.run(
        ["bash", "-c", f'{sed}; echo "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    [command] = out.stdout.strip().splitlines()
    assert command in README
    assert command.endswith("-m pytest")
