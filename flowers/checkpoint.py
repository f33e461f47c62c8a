"""Reading a checkpoint safely, and what it says of the run that it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
import yaml

# Number of the format of a checkpoint, raised by a change that older checkpoints do not survive.
FORMAT = 2
# What a checkpoint may say of the trainer: how long and how finely the run trains, not on which
# machine.
_PLAIN_TRAINER_OPTIONS = {
    *(
        "max_epochs",
        "min_epochs",
        "max_steps",
        "min_steps",
        "max_time",
        "precision",
        "accumulate_grad_batches",
    ),
    *(
        "gradient_clip_val",
        "gradient_clip_algorithm",
        "check_val_every_n_epoch",
        "val_check_interval",
    ),
    *(
        "limit_train_batches",
        "limit_val_batches",
        "log_every_n_steps",
        "deterministic",
        "default_root_dir",
    ),
}
# The options of a task that make its network; all others say how it learns.
_NETWORK_OPTIONS = ("arch", "widths", "depth", "stem_stride", "norm")


def checkpoint_file(path: str | Path) -> Path:
    """Return the best checkpoint of a run folder; any other path as it is."""
    best = Path(path) / "checkpoints" / "best.ckpt"
    return best if best.is_file() else Path(path)


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Return a checkpoint, after checking that it is whole.

    Args:
        file: The checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint of the project, or has changed since it was saved.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(
            f"{file}: expected a checkpoint file, as "
            "lightning_logs/version_0/checkpoints/best.ckpt, got "
            f"{'a folder' if Path(file).is_dir() else 'no such file'}"
        )
    if not is_zipfile(file):
        raise ValueError(
            f"{file}: expected a checkpoint of this project, got another file or a part of one"
        )
    try:
        with ZipFile(file) as archive:
            packed = any(entry.compress_type != ZIP_STORED for entry in archive.infolist())
            if packed:  # torch packs nothing: this could fill the memory
                raise ValueError("compressed parts")
            if archive.testzip() is not None:  # the archive's CRC-32, which torch does not verify
                raise BadZipFile
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        assert checkpoint["hyper_parameters"]["class_names"]
    except BadZipFile as error:
        raise ValueError(
            f"{file}: expected what was saved, got a damaged file. Copy it again."
        ) from error
    except UnpicklingError as error:  # torch's own words advise to load it nevertheless
        raise ValueError(
            f"{file}: expected weights and plain values, got code or other objects"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{file}: expected a checkpoint of this project, got one without {error}"
        ) from error
    except Exception as error:  # whatever another file leads torch to
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file}: expected a checkpoint of this project, got {reason}") from error
    if checkpoint.get("format") != FORMAT:
        raise ValueError(
            f"{file}: expected a checkpoint of format {FORMAT}, got "
            f"{checkpoint.get('format', 'none')}. Use the version of flowers that wrote it, or "
            "train again."
        )
    return checkpoint


def best_epoch(run: Path) -> int | None:
    """Return the epoch, counted from 0, of a run's best checkpoint; None for a run without one."""
    file = run / "checkpoints" / "best.ckpt"
    return (
        int(torch.load(file, map_location="cpu", weights_only=True)["epoch"])
        if file.is_file()
        else None
    )


def stored_config(
    checkpoint: dict[str, Any], verb: str, *, ckpt_path: str, model: str | None = None
) -> dict[str, Any]:
    """Return the configuration in a checkpoint: all for ``fit``, model and data otherwise.

    Args:
        checkpoint: What ``read_checkpoint`` returns.
        verb: The verb that asks.
        ckpt_path: The checkpoint's file, for errors.
        model: The class that the command line names, which may be one from elsewhere.

    Raises:
        ValueError: The configuration names code.
    """
    config: dict[str, Any] = yaml.safe_load(checkpoint.get("config", "{}"))
    class_path = str(config.get("model", {}).get("class_path", "flowers."))
    if not class_path.startswith("flowers.") and class_path != model:
        # A class from elsewhere is code; it runs only if somebody types its name.
        raise ValueError(
            f"--ckpt_path {ckpt_path}: its model is no part of this package; give it with --model "
            f"{class_path}"
        )
    # For the same reason optimizer, callbacks, loggers and plug-ins have to be typed again.
    trainer = config.get("trainer", {})
    plain = {key: value for key, value in trainer.items() if key in _PLAIN_TRAINER_OPTIONS}
    left_out = ("optimizer", "lr_scheduler")
    kept = {key: value for key, value in config.items() if key not in left_out} | {"trainer": plain}
    if not isinstance(config.get("data", {}).get("augment", {}), dict) or _names_code(kept):
        raise ValueError(
            f"--ckpt_path {ckpt_path}: its configuration names code other than a model of this "
            f"package"
        )
    if verb != "fit":
        kept = {key: kept[key] for key in ("model", "data") if key in kept}
        kept.setdefault("data", {})["crop_size"] = (
            None  # nothing is cropped, and another image size may be typed
        )
    return kept


def _names_code(config: dict[str, Any]) -> bool:
    """Return whether anything but the model is a class to import."""
    inside = [
        config.get("model", {}).get("init_args", {}),
        *(v for key, v in config.items() if key != "model"),
    ]
    while inside:
        value = inside.pop()
        if isinstance(value, dict):
            if "class_path" in value:
                return True
            inside += value.values()
        elif isinstance(value, list):
            inside += value
    return False


def check_network(given: Mapping[str, Any], stored: Mapping[str, Any], *, ckpt_path: str) -> None:
    """Refuse options that make another network than a checkpoint has.

    Args:
        given: The configuration of the model, of the command line and its files over the
            checkpoint's.
        stored: The checkpoint's own.
        ckpt_path: The checkpoint's file, for the error.

    Raises:
        ValueError: The networks differ; both are named.
    """
    if not stored:
        return
    stored_options = _network_options(stored)
    given_options = _network_options(given)
    if stored["class_path"] == given["class_path"] and stored_options == given_options:
        return
    networks = []
    for model, options in ((stored, stored_options), (given, given_options)):
        words = [f"{name} {value}" for name, value in options.items()]
        networks.append(" ".join([model["class_path"].removeprefix("flowers."), *words]))
    raise ValueError(
        f"--ckpt_path {ckpt_path}: its network is {networks[0]}, the options (or a --config) make "
        f"{networks[1]}. Leave out what makes another network, or leave out --ckpt_path to train a "
        "new one."
    )


def _network_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that make a network; a tuple is a list, as in YAML."""
    options = {}
    for name, value in model.get("init_args", {}).items():
        if name in _NETWORK_OPTIONS:
            options[name] = list(value) if isinstance(value, tuple) else value
    return options


def check_optimizer(
    given: Mapping[str, Any], checkpoint: Mapping[str, Any], *, ckpt_path: str
) -> None:
    """Check that a resumed run has its optimizer: a checkpoint names no code to run.

    Args:
        given: The configuration of ``fit``.
        checkpoint: What ``read_checkpoint`` returns.
        ckpt_path: The checkpoint's file, for the error.

    Raises:
        ValueError: ``--optimizer`` or ``--lr_scheduler`` are missing; the error says what to give
            again.
    """
    config = yaml.safe_load(checkpoint.get("config", "{}"))
    words = []
    for name in ("optimizer", "lr_scheduler"):
        stored = config.get(name)
        if stored and not given.get(name):
            words.append(f"--{name} {stored['class_path']}")
            options = stored.get("init_args", {}).items()
            words += [
                f"--{name}.{option} {shlex.quote(str(value))}"
                for option, value in options
                if value is not None
            ]
    if words:
        raise ValueError(
            f"--ckpt_path {ckpt_path}: its run was given an optimizer or a schedule of its own, "
            f"which a checkpoint does not bring along. Give again: {' '.join(words)}"
        )


def why_finished(
    checkpoint: Mapping[str, Any],
    *,
    max_epochs: int,
    min_epochs: int | None,
    monitor: str,
    patience: int,
) -> str:
    """Return why there is nothing left to train for a run; empty if there is.

    Args:
        checkpoint: The checkpoint that it would be resumed from.
        max_epochs: Epochs to train; -1 without an end.
        min_epochs: Epochs that early stopping waits for.
        monitor: Metric that early stopping monitors.
        patience: Epochs without an improvement that early stopping waits for.

    Raises:
        ValueError: The checkpoint has no state of a training.
    """
    if "loops" not in checkpoint:
        raise ValueError(
            "--ckpt_path: expected a checkpoint to resume from, got one without the state of a "
            "training"
        )
    num_epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if 0 <= max_epochs <= num_epochs:
        return f"it has trained {num_epochs} epochs, --trainer.max_epochs is {max_epochs}"
    for key, state in checkpoint.get("callbacks", {}).items():
        is_early_stopping = key.startswith("EarlyStopping") and f"'{monitor}'" in key
        if (
            is_early_stopping
            and state["wait_count"] >= patience
            and num_epochs >= (min_epochs or 0)
        ):
            return (
                f"early stopping ended it after {num_epochs} epochs, --early_stopping.patience is "
                f"{patience}"
            )
    return ""
