"""Errors of the command line."""

from __future__ import annotations

import pytest

from flowers.arguments import explain
from flowers.cli import training
from flowers.cli.predict import predict


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.batchsize", "3"], "--data.batchsize: no such option, did you mean --data.batch_size?"),
        (["--trainer.max_epoch=3"], "--trainer.max_epoch=3: no such option, did you mean --trainer.max_epochs?"),
        (["--xyz", "3"], "--xyz: no such option"),
        (["--model.lrr", "3"], "--model.lrr: CNNTask has no such option, did you mean --model.lr?"),
        (
            ["--model", "TransferTask", "--model.archh", "x"],
            "TransferTask has no such option, did you mean --model.arch?",
        ),
        (["--model", "CNTask"], "--model CNTask: expected CNNTask, TransferTask or the import path of a class"),
        (["--data.batch_size", "x"], "--data.batch_size: Expected a <class 'int'>. Got value: x"),
        (["--config", "nowhere.yaml"], "--config: File does not exist"),
    ],
)
def test_a_mistake_gets_one_line_and_the_nearest_option(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        training.main(["fit", *words])
    assert ended.value.code == 2
    line, hint = capsys.readouterr().err.splitlines()
    assert line.startswith("flowers: ")
    assert message in line
    assert hint == "All options: python -m flowers fit --help"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {batchsize: 3}", "bad.yaml: --data.batchsize: no such option, did you mean --data.batch_size?"),
        (
            "trainer: {max_epoch: 3}",
            "bad.yaml: --trainer.max_epoch: no such option, did you mean --trainer.max_epochs?",
        ),
        ("model: {class_path: CNNTask, init_args: {width: 3}}", "--model.width: CNNTask has no such option"),
    ],
)
def test_a_mistake_in_a_configuration_names_the_file(text, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["flowers", "fit", "--config", "bad.yaml"])
    with pytest.raises(SystemExit):
        training.main(["fit", "--config", "bad.yaml"])
    assert message in capsys.readouterr().err


def test_the_options_of_other_commands_are_known_too(capsys):
    from flowers.__main__ import run_function

    with pytest.raises(SystemExit):
        run_function(predict, ["x", "--ckpt_pth", "y"])
    assert "--ckpt_pth: no such option, did you mean --ckpt_path?" in capsys.readouterr().err


def test_any_other_message_becomes_one_line():
    assert explain('Parser key "data":\n  first\n  second', [], []) == "--data: first second"
