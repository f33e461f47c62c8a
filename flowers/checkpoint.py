"""Read weights, checkpoints and the configuration stored in them, without running their code."""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from pickletools import genops
from typing import IO, Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
import yaml
from torch.nn.modules.module import register_module_parameter_registration_hook

# Version of the checkpoint format. Increase it if a change makes older checkpoints unreadable.
FORMAT = 3
# Globals in pickles of weights and plain values. torch.load allows more, such as bytearray, whose
# call bytearray(10**12) would fill the memory.
_CALLS = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) set|"
    r"torch (Size|device|\w+Storage|b?float\w+|u?int\w+|complex\w+|bool)|"
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter"
)
# YAML aliases of aliases multiply: with 20, a configuration is up to some 1,500 times its text.
_MAX_ALIASES = 20
# Trainer options that are read from a checkpoint: they describe the training, not the machine.
_TRAINER_OPTIONS = ["max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"]
_TRAINER_OPTIONS += ["precision", "accumulate_grad_batches", "deterministic", "default_root_dir"]
_TRAINER_OPTIONS += ["gradient_clip_val", "gradient_clip_algorithm", "check_val_every_n_epoch"]
_TRAINER_OPTIONS += ["val_check_interval", "limit_train_batches", "limit_val_batches"]
_TRAINER_OPTIONS += ["log_every_n_steps"]


def checkpoint_file(path: str | Path) -> Path:
    """Return the best checkpoint of a run folder; any other path is returned unchanged."""
    best = Path(path) / "checkpoints" / "best.ckpt"
    return best if best.is_file() else Path(path)


def load_weights(file: Path) -> Any:  # noqa: ANN401
    """Return the weights and plain values in a file of ``torch.save``.

    The file is checked first: loading it must run no code, and must not take much more memory than
    the file has bytes.

    Raises:
        ValueError: The file is damaged, or contains code or other objects.
    """
    is_archive = is_zipfile(file)
    try:
        with file.open("rb") as opened:
            # Before version 1.6, torch wrote five pickles, one after the other.
            pickles = _archive_pickles(opened) if is_archive else [opened] * 5
            for code, name, _ in chain.from_iterable(map(genops, pickles)):
                if code.name == "GLOBAL" and not _CALLS.fullmatch(str(name)):
                    raise UnpicklingError
        # With mmap, torch refuses a tensor that extends beyond the end of the file.
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except BadZipFile as error:
        raise ValueError("a damaged file. Copy it again.") from error
    except UnpicklingError as error:  # torch's message suggests weights_only=False
        raise ValueError("code or other objects instead of weights and plain values") from error
    except ValueError as error:
        raise ValueError("a file that torch.save did not write, or an incomplete one") from error


def _archive_pickles(file: IO[bytes]) -> list[Any]:
    """Return the pickles in a zip archive, after checking the sizes and CRC-32 of its entries."""
    with ZipFile(file) as archive:
        entries = archive.infolist()
        # torch.save does not compress. Entries larger than the file could fill the memory.
        is_stored = all(entry.compress_type == ZIP_STORED for entry in entries)
        if not is_stored or sum(entry.file_size for entry in entries) > file.seek(0, 2):
            raise ValueError
        if archive.testzip() is not None:  # torch does not verify the CRC-32
            raise BadZipFile
        return [archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")]


def read_checkpoint(file: str | Path) -> dict[str, Any]:
    """Return a checkpoint with its parsed configuration, after checking that it is undamaged.

    Args:
        file: The checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint of the project, or has changed since it was saved.
    """
    if not Path(file).is_file():
        last = Path(file) / "checkpoints" / "last.ckpt"
        kind = "a folder" if Path(file).is_dir() else "no such file"
        if last.is_file():
            kind = f"a run without best.ckpt, because no epoch was validated. Give {last}"
        raise FileNotFoundError(
            f"{file}: expected a checkpoint file, such as RUN/checkpoints/best.ckpt, got {kind}"
        )
    try:
        checkpoint: dict[str, Any] = load_weights(Path(file))
        if not checkpoint["hyper_parameters"]["class_names"]:
            raise ValueError("a file without class names")
        checkpoint["config"] = read_config(checkpoint.get("config", "{}"))
    except Exception as error:  # torch.load raises errors of any kind
        reason = str(error).partition("\n")[0]
        if isinstance(error, KeyError):
            reason = f"a file without {error}"
        raise ValueError(f"{file}: expected a checkpoint of this project, got {reason}") from error
    number = checkpoint.get("format", "none")
    if number != FORMAT:
        raise ValueError(
            f"{file}: expected a checkpoint of format {FORMAT}, got {number}. Use the version of "
            "flowers that wrote it, or train again."
        )
    return checkpoint


def read_config(text: str) -> dict[str, Any]:
    """Return the configuration of a run; an empty dict if the text is not a YAML mapping.

    Raises:
        ValueError: The text is not valid YAML, or its aliases could fill the memory.
    """
    try:
        events = list(map(type, yaml.parse(text, yaml.SafeLoader)))
        if events.count(yaml.AliasEvent) > _MAX_ALIASES:
            raise yaml.YAMLError(f"more than {_MAX_ALIASES} aliases. Write out their values.")
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML: {error}") from error
    return config if isinstance(config, dict) else {}


@contextmanager
def limit_network(file: str | Path | None) -> Iterator[None]:
    """Refuse to construct a network larger than the file of a checkpoint; None for no limit.

    Raises:
        ValueError: The options describe a larger network.
    """
    size = math.inf if file is None else Path(file).stat().st_size
    num_tensors = 10 + size / 100  # a tensor takes more than 100 bytes of a file
    # torchvision constructs a last layer of 1,000 classes, before it is replaced.
    num_values = 10**7 + size

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        nonlocal num_tensors, num_values
        num_tensors -= 1
        num_values -= parameter.numel()
        if min(num_tensors, num_values) < 0:
            raise ValueError("expected options of the checkpoint's network, got a larger network")

    with register_module_parameter_registration_hook(count):
        yield


def stored_config(
    checkpoint: dict[str, Any], command: str, *, model: str | None = None
) -> dict[str, Any]:
    """Return the configuration that a command reads from a checkpoint.

    ``fit`` reads all options except optimizer, schedule and some options of the trainer. The other
    commands read the options of model, data and calibration.

    Args:
        checkpoint: What ``read_checkpoint`` returns.
        command: Name of the command.
        model: The model's class on the command line, which may be from another package.

    Raises:
        ValueError: The configuration names a class or function of another package.
    """
    # A checkpoint must not run code of other packages that the user did not name. Therefore
    # optimizer, callbacks, loggers and plug-ins have to be given again.
    skipped = ("optimizer", "lr_scheduler", "trainer")
    config = {name: part for name, part in checkpoint["config"].items() if name not in skipped}
    class_path = str(config.get("model", {}).get("class_path", "flowers."))
    if not class_path.startswith("flowers.") and class_path != model:
        raise ValueError(f"its model is not part of this package; give `model` {class_path}")
    trainer = checkpoint["config"].get("trainer", {})
    config["trainer"] = {name: trainer[name] for name in _TRAINER_OPTIONS if name in trainer}
    model_options = config.get("model", {}).get("init_args", {})
    has_code = _has_class(config | {"model": model_options})
    if has_code or not isinstance(config.get("data", {}).get("augment", {}), dict):
        raise ValueError("its configuration names code other than a model of this package")
    if command != "fit":
        config = {name: config[name] for name in ("model", "data", "calibration") if name in config}
        # Evaluation does not crop, and a given image_size may be smaller than the stored crop_size.
        config.setdefault("data", {})["crop_size"] = None
    return config


def model_option(task: object) -> str:
    """Return the `model` option that must be given again; empty for a task of this package."""
    name = f"{type(task).__module__}.{type(task).__qualname__}"
    return "" if name.startswith("flowers.") else f" `model` {name}"


def _has_class(value: Any) -> bool:  # noqa: ANN401
    """Return whether a part of a configuration names a class to import."""
    if isinstance(value, dict):
        return "class_path" in value or any(map(_has_class, value.values()))
    return isinstance(value, list) and any(map(_has_class, value))


def check_network(given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Check that the options define the network of a checkpoint.

    Args:
        given: The configuration of the model: the checkpoint's, overridden by the command line.
        stored: The configuration of the model in the checkpoint.

    Raises:
        ValueError: The networks differ; the message describes both.
    """
    if not stored:
        return
    stored_network = _describe_network(stored)
    given_network = _describe_network(given)
    if stored_network != given_network:
        raise ValueError(
            f"its network is {stored_network}, the options (or a configuration) define "
            f"{given_network}. Leave out the options of the network, or leave out `ckpt_path` to "
            "train a new network."
        )


def _describe_network(model: Mapping[str, Any]) -> str:
    """Return the class of a model and the options that define its network."""
    words = [model["class_path"].removeprefix("flowers.")]
    options = model.get("init_args", {})
    # No other option changes the parameters of the network.
    for name in ("arch", "widths", "depth", "stem_stride", "norm"):
        if name in options:
            value = options[name]
            if isinstance(value, tuple):  # to compare it with a list from YAML
                value = list(value)
            words.append(f"{name} {value}")
    return " ".join(words)
