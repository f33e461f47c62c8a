"""Who may import whom, and what the library may say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import flowers
from flowers.__main__ import COMMANDS, LIGHTNING_COMMANDS
from flowers.cli.command_options import command_options
from flowers.cli.options_in_messages import training_options

PACKAGE = Path(flowers.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each part may import of the project besides itself.
ALLOWED = {
    "models": {"checkpoint"},
    "data": {"decoding", "csv_files", "printable", "runtime"},
    "evaluation": {"csv_files"},
    "tasks": {"checkpoint", "models"},
    "callbacks": {"checkpoint", "models", "tasks", "evaluation", "data", "run_folder"},
    "deploy": {"checkpoint", "data", "models", "runtime", "tasks"},
    "decoding": set(),
    "csv_files": set(),
    "checkpoint": set(),
    "printable": set(),
    "run_folder": set(),
    "runtime": set(),
    "cli": {
        "callbacks",
        "checkpoint",
        "csv_files",
        "data",
        "deploy",
        "evaluation",
        "models",
        "printable",
        "run_folder",
        "runtime",
        "tasks",
    },
    "__main__": {"cli", "runtime"},
    "__init__": {"data", "deploy", "tasks"},
}
LIGHTNING = ("cli/training", "cli/predict", "runtime", "data/datamodule", "tasks/", "callbacks/")
# Everything but the command line.
LIBRARY = [file for file in FILES if "cli" not in file.parts and file.name != "__main__.py"]
OPTIONS = {
    option
    for command in COMMANDS
    for option in command_options(
        command, module="training" if command in (*LIGHTNING_COMMANDS, "calibrate") else command
    )
}


def part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def texts(file: Path) -> list[str]:
    """Return all texts in a file but docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_design(file: Path):
    ours = [name.split(".") for name in imports(file) if name.startswith("flowers.")]
    other = {name[1] for name in ours} - {part(file)}
    assert other <= ALLOWED[part(file)]
    # Across folders only what the folder's __init__ offers: flowers.<folder>.<Name>.
    deep = [".".join(name) for name in ours if name[1] != part(file) and len(name) > 3]
    if part(file) != "__main__":  # it starts quickly by importing only what a command needs
        assert not deep


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_lightning_stays_where_it_belongs(file: Path):
    if any(name.split(".")[0] in ("lightning", "pytorch_lightning") for name in imports(file)):
        assert str(file.relative_to(PACKAGE)).startswith(LIGHTNING)


@pytest.mark.parametrize("file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: file.name)
def test_no_command_imports_another(file: Path):
    commands = {"training", "audit", "compare", "cross_validate", "demo", "export", "predict"}
    assert (
        not {name.split(".")[2] for name in imports(file) if name.startswith("flowers.cli.")}
        & commands
    )


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_messages_of_the_library_name_parameters_and_no_options(file: Path):
    named = set()
    for text in texts(file):
        assert not set(re.findall(r"--[a-z_][\w.]*", text)) & OPTIONS
        named |= set(re.findall(r"`([a-z_.]+)`", text))
    named.discard("device")  # of FlowerPredictor only
    # Every parameter gets its option from the command line.
    parameters = {name.removeprefix("--") for name in OPTIONS} | training_options().keys()
    assert named <= parameters | COMMANDS.keys()
