"""The options of every command, read from source files, because importing torch takes seconds."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The classes whose parameters are the options of each group of ``fit``, ``validate``, ``test``.
GROUPS = {
    "trainer": ["lightning/pytorch/trainer/trainer.py:Trainer"],
    "early_stopping": ["lightning/pytorch/callbacks/early_stopping.py:EarlyStopping"],
    "lr_monitor": ["lightning/pytorch/callbacks/lr_monitor.py:LearningRateMonitor"],
    "checkpoint": ["flowers/callbacks/save_checkpoint.py:SaveBest"],
    "last_checkpoint": ["flowers/callbacks/save_checkpoint.py:SaveLast"],
    "freeze": ["flowers/callbacks/freeze_backbone.py:FreezeBackbone"],
    "calibration": ["flowers/callbacks/calibrate.py:Calibrate"],
    "tensorboard": ["flowers/callbacks/tensorboard.py:LogToTensorBoard"],
    "report": ["flowers/callbacks/write_report.py:WriteReport"],
    "data": ["flowers/data/datamodule.py:FlowersDataModule"],
    "data.augment": ["flowers/data/augment.py:BatchAugmentation"],
    "model": [
        "flowers/tasks/classification.py:ClassificationTask",
        "flowers/tasks/cnn.py:CNNTask",
        "flowers/tasks/transfer.py:TransferTask",
    ],
}
_OTHERS = ["config", "print_config", "seed_everything", "ckpt_path", "weights_only", "verbose"]
_OTHERS += ["optimizer", "optimizer.help", "lr_scheduler", "lr_scheduler.help"]
_OTHERS += ["model.help", "model.class_path", "model.init_args", "model.dict_kwargs"]


def command_options(command: str, *, module: str) -> list[str]:
    """Return the names of the options of a command, with their dashes.

    Args:
        command: Name of the command.
        module: Name of the file in ``flowers/cli`` without its ending.
    """
    if command in ("fit", "validate", "test"):
        names = ["help", *_OTHERS]
        for group, classes in GROUPS.items():
            names.append(group)
            for path in classes:
                names += [f"{group}.{name}" for name in _parameters(_definition(path))]
        return [f"--{name}" for name in names]
    options = ["--help"]
    for name in command_arguments(command, module=module):
        if name.endswith("_options"):  # takes the options of another command
            other = name.removeprefix("--").removesuffix("_options")
            options += command_options(other, module="training")
        elif name.startswith("--"):
            options.append(name)
    return options


def command_arguments(command: str, *, module: str) -> dict[str, bool]:
    """Return the arguments of a command that is a function, and whether each is required.

    Args:
        command: Name of the command.
        module: Name of the file in ``flowers/cli`` without its ending.
    """
    function = _definition(f"flowers/cli/{module}.py:{command}").args
    required = {argument.arg: True for argument in function.args}
    for option, default in zip(function.kwonlyargs, function.kw_defaults, strict=True):
        required[f"--{option.arg}"] = default is None
    return required


@cache
def _definition(path: str) -> Any:  # noqa: ANN401
    """Return the syntax tree of a function or a class.

    Args:
        path: Package, file and name, such as ``flowers/cli/audit.py:audit``.
    """
    file, _, name = path.partition(":")
    package, _, inside = file.partition("/")
    spec = find_spec(package)  # does not import the package
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / inside).read_text(encoding="utf-8"))
    [node] = [node for node in tree.body if getattr(node, "name", "") == name]
    return node


def _parameters(node: ast.ClassDef) -> list[str]:
    """Return the parameter names of the constructor, or the field names of a dataclass."""
    fields = []
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = statement.args
            return [argument.arg for argument in arguments.args[1:] + arguments.kwonlyargs]
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            fields.append(statement.target.id)
    return fields
