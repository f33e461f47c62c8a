"""The options that are read from source files are those of the parsers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from flowers.__main__ import COMMANDS, LIGHTNING_COMMANDS, run_function
from flowers.cli import training
from flowers.cli.command_options import command_options


def printed_options(capsys) -> set[str]:
    printed = re.findall(r"^\s+(?:-\w, )?(--[\w.]+)", capsys.readouterr().out, re.MULTILINE)
    return {option for option in printed if not option.endswith(".help")}


@pytest.mark.parametrize("command", sorted(LIGHTNING_COMMANDS))
def test_the_options_of_lightning_commands(command, capsys):
    printed = set()
    for model in ("CNNTask", "TransferTask"):
        with pytest.raises(SystemExit):
            training.main([command, "--model", model, "--help", "all"])
        printed |= printed_options(capsys)
    known = {
        name for name in command_options(command, module="training") if not name.endswith(".help")
    }
    assert printed <= known
    # Not printed: the network that a task is given, links, and the parts of a class.
    assert {name for name in known - printed if name.count(".") == 1} <= {
        "--model.net",
        "--model.class_path",
        "--model.init_args",
        "--model.dict_kwargs",
        "--data.seed",
        "--early_stopping.mode",
        "--early_stopping.monitor",
    }


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - LIGHTNING_COMMANDS))
def test_the_options_of_functions(command, capsys):
    name = "training" if command == "calibrate" else command
    function = getattr(import_module(f"flowers.cli.{name}"), command)
    with pytest.raises(SystemExit):
        run_function(function, ["--help"])
    own = printed_options(capsys)
    known = command_options(command, module=name)
    assert own <= set(known)
    others = set(known) - own
    expected = set()
    if command in ("calibrate", "cross_validate"):
        other = "validate" if command == "calibrate" else "fit"
        expected = set(command_options(other, module="training")) - own
    assert others == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "fit --data.batchsize 3",
            "--data.batchsize: no such option, did you mean --data.batch_size?",
        ),
        ("calibrate x --data.rot y", "--data.rot: no such option, did you mean --data.root?"),
        ("cross_validate --data.rot y", "--data.rot: no such option, did you mean --data.root?"),
        (
            "fit --config bad.yaml",
            "bad.yaml: --model CNNTaks: expected CNNTask, TransferTask or the import path",
        ),
        ("predict --ckpt x", "--ckpt: no such option, did you mean --ckpt_path?"),
        ("export x --outt y", "--outt: no such option, did you mean --out?"),
        ("predict", "the following arguments are required: photos, --ckpt_path"),
        ("predict photo.jpg", "the following arguments are required: --ckpt_path"),
        ("predict --out x.csv --ckpt_path y", "the following arguments are required: photos"),
        ("demo --share true", "the following arguments are required: --ckpt_path"),
        ("export --format onnx", "the following arguments are required: checkpoint"),
    ],
)
def test_a_mistake_is_answered_before_torch_is_imported(words, message):
    Path("bad.yaml").write_text("model: {class_path: CNNTaks}")
    code = (
        "import sys; from flowers.__main__ import main\n"
        "try: main()\nfinally: assert 'torch' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=False
    )
    line, hint = run.stderr.splitlines()
    assert line.startswith(f"flowers: {message}")
    assert hint == f"Options: python -m flowers {words.split()[0]} --help"
    assert run.returncode == 2
