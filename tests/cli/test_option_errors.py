"""Errors of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowers import runtime, tasks
from flowers.__main__ import main
from flowers.cli import training
from flowers.cli.command_options import command_options
from flowers.cli.option_errors import (
    TASKS,
    expand_home,
    explain,
    explain_error,
    find_mistake,
    print_error,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def answer(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return the line that answers a mistake."""
    monkeypatch.setattr("sys.argv", ["flowers", *words])
    monkeypatch.setattr(runtime, "prepare", lambda: None)  # it sets threads, for other tests too
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    *_, line, hint = capsys.readouterr().err.splitlines()
    assert hint == f"Options: python -m flowers {words[0]} --help"
    return line.removeprefix("flowers: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data.batchsize 3", "--data.batchsize: no such option, did you mean --data.batch_size?"),
        (
            "--trainer.max_epoch=3",
            "--trainer.max_epoch: no such option, did you mean --trainer.max_epochs?",
        ),
        ("--lr 3", "--lr: no such option, did you mean --model.lr?"),
        ("--xyz 3", "--xyz: no such option"),
        ("--data.root", "--data.root: expected a value"),
        ("photos", "photos: not expected here, options begin with two dashes"),
        (".", ".: not expected here, did you mean --data.root .?"),
        ("x/best.ckpt", "x/best.ckpt: not expected here, did you mean --ckpt_path x/best.ckpt?"),
        ("a.yaml", "a.yaml: not expected here, did you mean --config a.yaml?"),
        ("--model.widht 3", "--model.widht: no such option, did you mean --model.widths?"),
        (
            "--model.init_args.widht 3",
            "--model.widht: no such option, did you mean --model.widths?",
        ),
        (
            "--model TransferTask --model.archh x",
            "--model.archh: no such option, did you mean --model.arch?",
        ),
        ("--model.arch x", "--model.arch: CNNTask has no such option, but TransferTask has it"),
        (
            "--model CNNTaks",
            "--model CNNTaks: expected CNNTask, TransferTask or the import path of a class, did "
            "you mean CNNTask?",
        ),
        ("--model nowhere.Task", "--model nowhere.Task: No module named 'nowhere'"),
        ("--model.lr x", "--model.lr: expected float, got x"),
        ("--model.tta x", "--model.tta: expected none, flip or flip+crops, got x"),
        ("--data.batch_size x", "--data.batch_size: expected int, got x"),
        ("--data.cache x", "--data.cache: expected true or false, got x"),
        ("--trainer.max_epochs x", "--trainer.max_epochs: expected int or null, got x"),
        ("--optimizer Adm", "--optimizer Adm: there is no such class"),
        (
            "--optimizer Adam --optimizer.weight_deca 1",
            "--optimizer.weight_deca: Adam has no such option, did you mean "
            "--optimizer.weight_decay?",
        ),
        ("--config nowhere.yaml", "--config nowhere.yaml: there is no such file"),
    ],
)
def test_a_mistake_is_reported_in_one_line_with_the_nearest_option(
    words, message, monkeypatch, capsys
):
    assert answer(["fit", *words.split()], monkeypatch, capsys) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "data: {batchsize: 3}",
            "bad.yaml: --data.batchsize: no such option, did you mean --data.batch_size?",
        ),
        (
            "trainr: {max_epochs: 3}",
            "bad.yaml: --trainr.max_epochs: no such option, did you mean --trainer.max_epochs?",
        ),
        (
            "model: {class_path: CNNTask, init_args: {widht: 3}}",
            "bad.yaml: --model.widht: no such option, did you mean --model.widths?",
        ),
        (
            "model: {arch: x}",
            "bad.yaml: --model.arch: CNNTask has no such option, but TransferTask has it",
        ),
        ("model: {lr: x}", "bad.yaml: --model.lr: expected float, got x"),
        ("data: {batch_size: abc}", "bad.yaml: --data.batch_size: expected int, got abc"),
        ("model: nowhere.Task", "bad.yaml: --model nowhere.Task: No module named 'nowhere'"),
        ("- data", "bad.yaml: expected options such as data: {batch_size: 64}, got a list"),
        ("data", "bad.yaml: expected options such as data: {batch_size: 64}, got text"),
        ("# data:", "bad.yaml: expected options such as data: {batch_size: 64}, got nothing"),
        (
            "data:\n  root: [\n",
            "bad.yaml, line 3: no valid YAML, did not find expected node content",
        ),
        (
            "data:\n\troot: x",
            "bad.yaml, line 2: no valid YAML, found character that cannot start any token",
        ),
    ],
)
def test_a_mistake_in_a_configuration_names_the_file(text, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "bad.yaml").write_text(text)
    assert answer(["fit", "--config", "bad.yaml"], monkeypatch, capsys) == message


def test_a_mistake_on_the_command_line_names_no_configuration(tmp_path, monkeypatch, capsys):
    (tmp_path / "good.yaml").write_text("data: {batch_size: 3}")
    words = ["fit", "--config", "good.yaml", "--data.batch_size", "x"]
    assert answer(words, monkeypatch, capsys) == "--data.batch_size: expected int, got x"


def test_any_other_message_becomes_one_line():
    assert explain('Parser key "data":\n  first\n  second', []) == "--data: first second"


def test_the_tasks_are_those_of_the_package():
    assert {*TASKS, "ClassificationTask"} == {name for name in vars(tasks) if name.endswith("Task")}


@pytest.fixture(scope="module")
def fit_options() -> list[str]:
    return command_options("fit", module="training")


@pytest.mark.parametrize(
    "words",
    [
        [],
        *(["--config", str(file)] for file in sorted(CONFIGS.glob("*.yaml"))),
        ["--config", "data: {<<: {batch_size: 3}, augment.rotation: 3}"],
        ["--config", "trainer: {callbacks+: [{class_path: LearningRateMonitor}]}"],
        [
            "--config",
            "model: {class_path: CNNTask, init_args: {widths: [8]}}",
            "--model",
            "TransferTask",
        ],
        ["--config", "model: TransferTask", "--model.arch", "resnet18"],
        ["--model.class_path", "CNNTask", "--model.init_args.widths", "[8]"],
        ["--optimizer", "SGD", "--optimizer.lr", "0.1"],
        ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"],
        ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "x"],
        ["--data.root", "--not an option"],
        ["--data.augment", "{rotation: 3}"],
    ],
    ids=" ".join,
)
def test_whatever_the_parser_accepts_is_no_mistake(words, fit_options, capsys):
    assert find_mistake(words, fit_options) is None
    with pytest.raises(SystemExit) as ended:
        training.main(["fit", *words, "--print_config"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--model", "my_package.MyTask", "--model.widht", "3"],
        ["--config", "model: {class_path: my_package.MyTask, init_args: {widht: 3}}"],
        ["--ckpt_path", "lightning_logs/version_0", "--model.widht", "3"],
        ["--trainer.strategy.timeout", "3"],
        ["--optimizer.lr", "3"],
        ["--config", "-"],
    ],
)
def test_the_options_of_other_classes_are_left_to_the_parser(words, fit_options):
    assert find_mistake(words, fit_options) is None


def test_every_option_of_the_parser_is_known(fit_options, capsys):
    with pytest.raises(SystemExit):
        training.main(["fit", "--print_config"])
    Path("all.yaml").write_text(capsys.readouterr().out)
    assert find_mistake(["--config", "all.yaml"], fit_options) is None
    for option in fit_options:
        assert find_mistake([f"{option}={{}}"], fit_options) is None


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["--model.class_path", "flowers.tasks.NoSuchTask"], "NoSuchTask"),
        (["--data.resize", "squash"], "squash"),
        (["--seed_everything", "true"], "seed_everything"),
        (["--model.class_names", "[a,b]"], "class_names"),
        (["--seed_everything", "-1"], "seed_everything"),
        (["--trainer.use_distributed_sampler", "true"], "--trainer.use_distributed_sampler"),
        (["--trainer.log_every_n_steps", "0"], "--trainer.log_every_n_steps"),
    ],
)
def test_an_incorrect_option_is_named(args, option, synthetic, capsys):
    with pytest.raises(SystemExit) as caught:
        training.main(["fit", "--data.root", str(synthetic), *args])
    assert caught.value.code == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "option"),
    [
        ("You passed 1.5 for limit_train_batches", "--trainer.limit_train_batches 1.5"),
        ("invalid strategy name: `strategy='foo'`", "--trainer.strategy foo"),
        ("[Errno 17] File exists: '/dev/null'", "--data.cache_dir /dev/null"),
        ("the learning rate", "given.yaml: --model.lr 3"),
    ],
)
def test_an_error_of_a_library_names_the_option_that_it_is_about(message, option):
    Path("given.yaml").write_text("model: {class_path: CNNTask, init_args: {lr: 3}}")
    words = ["--trainer.limit_train_batches", "1.5", "--trainer.strategy=foo"]
    words += ["--data.cache_dir", "/dev/null", "--config", "given.yaml"]
    error = ValueError(message.replace("the learning rate", "`lr` is\n  odd"))
    assert explain_error(error, words).startswith(f"{option}: ")
    assert "\n" not in explain_error(error, words)


def test_an_error_without_an_option_names_all_that_are_given():
    words = ["--data.root", "photos", "--model.lr=3"]
    assert explain_error(KeyError("x"), words) == "--data.root photos, --model.lr 3: KeyError 'x'"
    assert explain_error(ZeroDivisionError("zero"), []) == "zero"


@pytest.mark.parametrize("value", ["null", "", "~", "[1]", "3", "-0.5", "true", "false"])
def test_a_group_of_options_without_any_is_a_mistake(value, fit_options):
    Path("bad.yaml").write_text(f"trainer: {{}}\ndata: {value}")
    message = "bad.yaml: --data: expected a mapping of its options, got "
    mistake = find_mistake(["--config", "bad.yaml"], fit_options)
    assert mistake.removeprefix(message) in (value, "nothing", "['1']")


def test_a_group_of_options_may_be_a_file(fit_options):
    assert find_mistake(["--data", "data.yaml"], fit_options) is None


@pytest.mark.parametrize("content", [b"\xff\xfed\x00a\x00", b"\x00\x01\x02", b"\x89PNG\r\n"])
def test_a_configuration_that_is_no_text_is_a_mistake(content, fit_options):
    Path("bad.yaml").write_bytes(content)
    message = "bad.yaml: expected a text file in UTF-8"
    assert find_mistake(["--config", "bad.yaml"], fit_options) == message


def test_the_home_folder_is_expanded_in_every_part_of_a_value(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    value = {"a": ["~/x", Path("~/y")], "b": {"c": "~"}, "d": "x~", "e": "$HOME/x", "f": 3}
    expanded = {"a": ["/home/me/x", Path("/home/me/y")], "b": {"c": "/home/me"}}
    assert expand_home(value) == expanded | {"d": "x~", "e": "$HOME/x", "f": 3}
    assert expand_home("~no_such_user/x") == "~no_such_user/x"


def test_an_error_of_all_processes_is_printed_once():
    # As a launcher does, this test ends the other process when the first has ended.
    command = [sys.executable, "-m", "flowers", "fit", "--data.rot", "x"]
    processes = []
    for rank in ("0", "1"):
        environ = os.environ | {"LOCAL_RANK": rank}
        processes.append(subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True))
    first, second = processes
    _, printed = first.communicate()
    second.kill()
    _, repeated = second.communicate()
    assert printed.count("--data.rot: no such option") == 1
    assert repeated == ""


def test_an_error_of_another_process_alone_is_printed_later(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("time.sleep", lambda seconds: print(f"waits {seconds} s", file=sys.stderr))
    print_error("only here")
    assert capsys.readouterr().err == "waits 5 s\nflowers: only here\n"


def test_names_in_an_error_are_printed_without_control_characters(capsys):
    print_error("`root`: no image in a\x1b[31mb\n  - add some")
    assert capsys.readouterr().err == "flowers: `root`: no image in a\\x1b[31mb\n  - add some\n"
