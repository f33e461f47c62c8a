"""The README's commands and options exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from flowers.__main__ import COMMANDS, run_function
from flowers.cli import training
from flowers.cli.audit import audit
from flowers.cli.compare import compare
from flowers.cli.cross_validate import cross_validate
from flowers.cli.demo import demo
from flowers.cli.export import export
from flowers.cli.predict import predict
from flowers.tasks import CNNTask, TransferTask

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL = "\n".join(
    [
        README,
        *(
            (ROOT / name / "README.md").read_text(encoding="utf-8")
            for name in ("configs", "scripts")
        ),
    ]
)


def test_every_command_exists_and_names_files_that_exist():
    commands = re.findall(r"python -m flowers (\w+)(.*)", ALL)
    assert len(commands) >= 8
    for name, rest in commands:
        assert name in COMMANDS
        for config in re.findall(r"--config ([\w./]+)", rest):
            assert (ROOT / config).is_file(), config
    for script in re.findall(r"python (scripts/\w+\.py)", ALL):
        assert (ROOT / script).is_file(), script
    for folder in (ROOT, ROOT / "configs", ROOT / "scripts"):
        for link in re.findall(
            r"\]\(([\w./]+)[#)]", (folder / "README.md").read_text(encoding="utf-8")
        ):
            assert (folder / link).is_file(), link


def test_every_configuration_and_script_is_described():
    for folder, pattern in (("configs", "*.yaml"), ("scripts", "*.py")):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        assert not [file.name for file in (ROOT / folder).glob(pattern) if file.name not in text]


def test_the_example_of_a_custom_network_trains(photos, tmp_path, monkeypatch, capsys):
    [program] = re.findall(r"```python\n([^`]*class MyTask[^`]*)```", README)
    (tmp_path / "my_package.py").write_text(program)
    monkeypatch.syspath_prepend(tmp_path)
    size = ["--data.image_size", "32", "--data.crop_size", "32"]
    trainer = [
        "--trainer.max_epochs",
        "1",
        "--trainer.log_every_n_steps",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    words = [
        "--data.root",
        str(photos(cat=12, dog=12)),
        "--model",
        "my_package.MyTask",
        "--model.width",
        "8",
        *size,
    ]
    run = training.main(["fit", *words, *trainer])
    assert "version_0 --model my_package.MyTask\n" in capsys.readouterr().out
    best = str(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt")
    assert (
        training.main(
            ["test", "--ckpt_path", best, "--model", "my_package.MyTask"]
        ).model.net.head.in_features
        == 8
    )
    assert run.model.net.head.in_features == 8


def test_the_example_of_a_custom_configuration_is_valid(tmp_path):
    [text] = re.findall(r"```yaml\n([^`]*)```", README)
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        training.main(["fit", "--config", "own.yaml", "--print_config"])
    assert ended.value.code == 0


def test_every_option_exists(capsys):
    with pytest.raises(SystemExit):
        training.main(["fit", "--help", "all"])
    for function in (audit, compare, cross_validate, demo, export, predict):
        with pytest.raises(SystemExit):
            run_function(function, ["--help"])
    known = capsys.readouterr().out
    tasks = (CNNTask(["a", "b"], widths=(8,)), TransferTask(["a", "b"], weights="none"))
    hparams = {name for task in tasks for name in task.hparams}
    options = set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)+)", ALL))
    assert len(options) > 10
    for option in options:
        if option.startswith("trainer.strategy."):
            continue  # options of the class given to --trainer.strategy
        group, _, name = option.partition(".")
        known_to_model = name in hparams or name in ("help", "width")  # width is MyTask's
        assert known_to_model if group == "model" else f"--{option}" in known, option


def test_every_option_of_a_strategy_exists(capsys):
    options = re.findall(r"--trainer\.strategy(?:\.[a-z_]+)? [^ `]+", ALL)
    assert len(options) == 3
    with pytest.raises(SystemExit):
        training.main(["fit", *" ".join(options).split(), "--print_config"])
    known = capsys.readouterr().out
    for _, _, setting in (option.partition("strategy.") for option in options):
        assert setting.replace(" ", ": ") in known


def test_ci_runs_the_test_command_of_the_readme():
    sed = next(
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line.startswith("command=")
    )
    out = subprocess.run(
        ["bash", "-c", f'{sed}; echo "$command"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    [command] = out.stdout.strip().splitlines()
    assert command in README
    assert command.endswith("-m pytest")


def test_the_map_of_the_package_names_what_exists():
    text = (ROOT / "flowers" / "README.md").read_text(encoding="utf-8")
    paths = {path for path in re.findall(r"`([\w/]+(?:\.py|/))`", text) if "name" not in path}
    assert len(paths) > 20
    assert not [
        path
        for path in paths
        if not (ROOT / "flowers" / path).exists() and not (ROOT / path).exists()
    ]
    source = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "flowers").rglob("*.py")
    )
    names = {name.rpartition(".")[2] for name in re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", text)}
    assert {"SplitImages", "on_after_batch_transfer"} <= names
    assert not [name for name in names if not re.search(rf"\b{name}\b", source)]
