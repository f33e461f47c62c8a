"""Short help of ``fit``, ``validate`` and ``test``."""

import json
import re
from typing import Any

from flowers.cli.option_errors import class_parser

# The common options by group. A text replaces the first sentence of an option's help, if that is
# too long.
COMMON_OPTIONS = {
    "data": {
        "data.root": "Folder of photos, root/<class>/<image>",
        "data.image_size": "Side of the decoded images, in pixels",
        "data.batch_size": "",
        "data.val_fraction": "",
        "data.test_fraction": "",
        "data.split_seed": "",
        "data.duplicates": "Duplicates that stay in one split: near, exact, ignore (none)",
        "data.on_bad_image": "On a broken image: stop before training, or skip it",
    },
    # ``short_help`` adds the options of the class.
    "model": {"model": "CNNTask, TransferTask, or a class of your own"},
    "training": {
        "trainer.max_epochs": "",
        "seed_everything": "Seed of weights, order and augmentation",
        "data.crop_size": "Side of the training crops, in pixels; a list: varies by epoch",
        "data.sampler": "shuffle: each image once; balanced: each class equally often",
        "data.augment.cutmix_prob": "",
        "freeze.unfreeze_epoch": "First epoch that trains the backbone; null: only the head",
    },
    "checkpoints and early stopping": {
        "checkpoint.monitor": "Metric of the best epoch: val/acc, val/loss or val/f1",
        "early_stopping.patience": "Validations without a better metric before training stops",
        "trainer.max_time": "Stop after this time, DD:HH:MM:SS",
        "ckpt_path": "Run folder or checkpoint to resume; last: the newest",
    },
    "evaluation": {
        "ckpt_path": "Checkpoint, or run folder for its best checkpoint",
        "model.tta": "",
        "calibration.selective_accuracy": "Accuracy above the confidence threshold",
        "report.folder": "Where test writes its report; null: the run folder",
    },
    "logging": {
        "trainer.default_root_dir": "Folder of lightning_logs; null: the current one",
        "trainer.log_every_n_steps": "Steps between two points of the curves",
        "tensorboard.every_n_epochs": "Epochs between two sets of figures",
    },
    "devices": {
        "trainer.accelerator": "cpu, gpu, mps or auto",
        "trainer.devices": "Number of devices, or their indices, such as [0,3]",
        "trainer.precision": "16-mixed or bf16-mixed are faster on most GPUs; null: 32",
    },
}
_WIDTH = 100


def short_help(parser: Any, model: type, *, command: str) -> str:  # noqa: ANN401
    """Return the common options with their defaults, a line each.

    Args:
        parser: The parser of the command.
        model: Class of the model; ``fit`` lists its options too.
        command: Name of the command.
    """
    model_actions = vars(class_parser(model))["_option_string_actions"]
    actions = model_actions | vars(parser)["_option_string_actions"]
    lines = [f"usage: python -m flowers {command} [--config FILE] [--OPTION VALUE ...]"]
    groups = [group for group in COMMON_OPTIONS if group != "evaluation"]
    if command != "fit":
        lines.append(
            "Options of data, model and calibration that are not given are the checkpoint's."
        )
        groups = ["data", "evaluation", "devices"]
    for group in groups:
        lines.append(f"{group}:")
        for name, text in COMMON_OPTIONS[group].items():
            lines.append(_line(f"--{name}", actions[f"--{name}"], text))
        if group == "model":
            for name, action in model_actions.items():
                if name.startswith("--model.") and not name.endswith(("+", ".class_names")):
                    lines.append(_line(name, action))
    return "\n".join([*lines, f"All options: python -m flowers {command} --help all"])


def _line(name: str, action: Any, text: str = "") -> str:  # noqa: ANN401
    """Return a line for an option, by default with the first sentence of the option's help."""
    if not text:
        text = re.sub(r" \(https?://[^)]*\)|``", "", " ".join((action.help or "").split()))
        text = re.split(r"[.;](?: |$)", text)[0]
    default = "" if action.required else _as_typed(action.default)
    option = f"  {name} {default}"
    line = f"{option:<36} {text}".rstrip()
    if len(line) <= _WIDTH:
        return line
    return line[: _WIDTH - 1].rpartition(" ")[0].rstrip(",:") + " …"


def _as_typed(value: Any) -> str:  # noqa: ANN401
    """Return a value in the syntax of the command line."""
    if class_path := getattr(value, "class_path", None):
        return str(class_path).rpartition(".")[2]
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), default=str)
