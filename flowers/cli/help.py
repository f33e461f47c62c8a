"""The short help of ``fit``, ``validate`` and ``test``: the options that people use."""

from __future__ import annotations

import re
import textwrap
from argparse import ArgumentParser
from inspect import Parameter, getdoc, signature
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import yaml
from docstring_parser import parse

from flowers.tasks import ClassificationTask

if TYPE_CHECKING:
    from collections.abc import Sequence

# Descriptions of the options that people use, by group; those of the model are the parameters of its class.
COMMON = {
    "Data": {
        "data.root": "folder of the photos, root/<class>/<image>",
        "data.image_size": "side of the decoded and evaluated image, in pixels",
        "data.crop_size": "side of the crops that are trained on, in pixels",
        "data.batch_size": "images in a batch, on each device",
        "data.val_fraction": "fraction of each class for validation",
        "data.test_fraction": "fraction of each class for the test",
        "data.split_seed": "seed of the split",
        "data.sampler": "shuffle, or balanced: every class equally often",
        "data.on_bad_image": "stop, or skip images that cannot be decoded",
        "data.cache_dir": "folder of the decoded images",
    },
    "Training": {
        "trainer.max_epochs": "epochs to train",
        "trainer.max_time": "time to train, as 00:08:00:00 (days:hours:minutes:seconds)",
        "seed_everything": "seed of weights, order and augmentation",
        "checkpoint.monitor": "metric that selects the best epoch and stops early",
        "early_stopping.patience": "epochs without an improvement before training stops",
        "freeze.unfreeze_epoch": "first epoch that trains the pretrained backbone; null: never",
    },
    "Devices and files": {
        "trainer.accelerator": "auto, cpu, gpu",
        "trainer.devices": "number of devices, or a list as [0,3]",
        "trainer.precision": "32-true, 16-mixed, bf16-mixed",
        "trainer.logger": "a logger beside TensorBoard, as CSVLogger; false: none",
        "trainer.default_root_dir": "folder of lightning_logs",
        "ckpt_path": "checkpoint or run folder to resume or evaluate; last: the newest",
        "config": "YAML file with options; several combine, the last wins",
    },
}
# Options of every task that its own class does not list.
_SHARED_MODEL_OPTIONS = ("class_weights", "tta")
_WIDTH = 100
_NAME_WIDTH = 34


def common_help(parser: Any, words: Sequence[str]) -> str:  # noqa: ANN401
    """Return the help of a command with the options that people use, and their defaults.

    Args:
        parser: The command's parser, of jsonargparse.
        words: The command line, which may name a model or a configuration.
    """
    command = parser.prog.split()[-1]
    task = _task_class(words)
    defaults = vars(parser.get_defaults().as_flat())
    own_defaults = {name: parameter.default for name, parameter in signature(task.__init__).parameters.items()}
    defaults |= {f"data.{name}": value for name, value in task.data_defaults(own_defaults).items()}
    lines = [f"usage: python -m flowers {command} [--config FILE] [options]", ""]
    for title, names in COMMON.items():
        lines.append(f"{title}:")
        lines += [_line(f"--{name}", description, defaults.get(name)) for name, description in names.items()]
        if title == "Data":
            lines += ["", f"Model (--model {task.__name__}):", *_model_lines(task)]
        lines.append("")
    lines.append(f"All options: python -m flowers {command} --help all")
    return "\n".join(lines) + "\n"


def _model_lines(task: type[ClassificationTask]) -> list[str]:
    """Return a line for each parameter of a task's own class, and for what all tasks share."""
    shared = signature(ClassificationTask.__init__).parameters
    parameters = dict(signature(task.__init__).parameters)
    parameters |= {name: shared[name] for name in _SHARED_MODEL_OPTIONS}
    helps: dict[str, str] = {}
    for cls in (ClassificationTask, task):
        documented = parse(getdoc(cls) or "").params
        helps |= {param.arg_name: param.description or "" for param in documented}
    return [
        _line(f"--model.{name}", helps.get(name, ""), parameter.default)
        for name, parameter in parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY or name in _SHARED_MODEL_OPTIONS
    ]


def _line(option: str, description: str, default: object) -> str:
    """Return one line about an option: the beginning of its description, and its default."""
    text = " ".join(description.split()).replace("``", "").partition(". ")[0].rstrip(".")
    value = list(default) if isinstance(default, tuple) else default
    suffix = "" if value is None else f" ({value})"
    width = _WIDTH - _NAME_WIDTH - len(suffix)
    if text[1:2].islower():
        text = text[0].lower() + text[1:]
    while len(text) > width and (clause := re.match(r"(.+)[,;:(]", text)):
        text = clause[1].rstrip()
    return f"  {option:<{_NAME_WIDTH - 3}} {textwrap.shorten(text, width, placeholder='')}{suffix}"


def _task_class(words: Sequence[str]) -> type[ClassificationTask]:
    """Return the task that a command line names, in an option or a configuration; by default ``CNNTask``."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", "--model.class_path")
    parser.add_argument("--config", action="append", default=[])
    known = parser.parse_known_args([word for word in words if word not in ("-h", "--help")])[0]
    name = known.model
    for file in [] if name else known.config:
        if Path(file).is_file():
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
            model = content.get("model") or {}
            name = model if isinstance(model, str) else model.get("class_path", name)
    name = name or "CNNTask"
    task: type[ClassificationTask] = resolve_name(name if "." in name else f"flowers.tasks.{name}")
    return task
