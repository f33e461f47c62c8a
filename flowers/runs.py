"""Run folders, files that overwrite nothing, and what a checkpoint says of its run."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import torch
import yaml

# What a checkpoint may say of the trainer: how long and how finely the run trains, not on which machine.
_PLAIN_TRAINER_OPTIONS = {
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "precision", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "check_val_every_n_epoch", "val_check_interval"),
    *("limit_train_batches", "limit_val_batches", "log_every_n_steps", "deterministic", "default_root_dir"),
}
# The options of a task that make its network; all others say how it learns.
_NETWORK_OPTIONS = ("arch", "widths", "depth", "stem_stride", "norm")


def run_folder(root: Path, *, resumed: str | None, rank: int) -> Path:
    """Return the folder of a run: a new one, or that of the ``last.ckpt`` it resumes, where it goes on.

    Args:
        root: Folder of the run folders.
        resumed: Checkpoint to resume from; from any other than ``last.ckpt`` a run begins anew, so that the epochs
            after that checkpoint stay.
        rank: Number of this process; only the first makes a folder, Lightning tells it to the others.
    """
    if resumed is not None and Path(resumed).name == "last.ckpt":
        run = Path(resumed).resolve().parents[1]
        if (run / "config.yaml").exists():
            return run
    return claim_run_folder(root) if rank == 0 else (root / "version_other").resolve()


def claim_run_folder(
    root: Path,
    name: str = "version",
    *,
    option: str = "--trainer.default_root_dir",
) -> Path:
    """Make and return the next free ``root/<name>_<number>``, another for each run that starts.

    Args:
        root: Folder of the run folders.
        name: What kind of run it is.
        option: The option that names another root, or another folder.

    Raises:
        OSError: The folder cannot be made.
    """
    with _naming(option, root):
        root.mkdir(parents=True, exist_ok=True)
        taken = (path.name.removeprefix(f"{name}_") for path in root.glob(f"{name}_*"))
        number = max((int(digits) for digits in taken if digits.isdecimal()), default=-1) + 1
        while True:
            try:
                (root / f"{name}_{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return (root / f"{name}_{number}").resolve()


def last_checkpoint(root: Path) -> str | None:
    """Return the ``last.ckpt`` of a run folder, or of the run under ``lightning_logs`` that saved one last; or None.

    Args:
        root: A run folder, or the folder that holds ``lightning_logs``.
    """
    own = root / "checkpoints" / "last.ckpt"
    found = [own] if own.is_file() else [*root.glob("lightning_logs/*/checkpoints/last.ckpt")]
    return str(max(found, key=lambda file: file.stat().st_mtime_ns)) if found else None


def check_new(file: Path, *, option: str) -> None:
    """Say what is wrong with a file to be written, before any work.

    Args:
        file: The file.
        option: The option that names it.

    Raises:
        FileExistsError: The file exists.
        FileNotFoundError: Its folder does not.
    """
    if file.exists():
        raise FileExistsError(f"{option} {file}: the file exists. Give another name, or move it.")
    if not file.absolute().parent.is_dir():
        raise FileNotFoundError(f"{option} {file}: expected a folder that exists, make it first")


def publish(finished: Mapping[Path, Path]) -> list[Path]:
    """Give finished files and folders their names, and return the names; nothing is overwritten.

    Where one of the names is taken, even since a moment ago, all get the next free number, as in
    ``report-2.html``, and that is printed.

    Args:
        finished: Files and folders, each with its name on the same disk.
    """
    number = 0
    while True:
        number += 1
        names = [numbered(name, number) for name in finished.values()]
        try:
            with ExitStack() as undo:
                for file, name in zip(finished, names, strict=True):
                    _publish(file, name, undo)
                undo.pop_all()
        except FileExistsError:
            continue
        if number > 1:
            taken = ", ".join(name.name for name in finished.values() if name.exists())
            instead = ", ".join(name.name for name in names)
            print(f"Not overwritten: {taken}. Written instead: {instead}")
        return names


def numbered(file: Path, number: int) -> Path:
    """Return ``a.csv`` as it is for number 1, and else as ``a-2.csv``."""
    return file if number == 1 else file.with_stem(f"{file.stem}-{number}")


def _publish(file: Path, name: Path, undo: ExitStack) -> None:
    if file.is_dir():
        name.mkdir()
        undo.callback(name.rmdir)
        for inner in file.iterdir():
            _publish(inner, name / inner.name, undo)
        return
    try:
        os.link(file, name)  # unlike a rename, refuses a name that exists
        undo.callback(name.unlink)
    except FileExistsError:
        raise
    except OSError:  # a disk without links, as exFAT
        with file.open("rb") as source, name.open("xb") as target:
            undo.callback(name.unlink)
            shutil.copyfileobj(source, target)


@contextmanager
def scratch_folder(parent: Path, *, option: str) -> Iterator[Path]:
    """Make a folder for files that are not finished, on the disk where they will be published.

    Args:
        parent: Folder of the finished files, made where it is missing.
        option: The option that names it.

    Raises:
        OSError: The files cannot be written.
    """
    with _naming(option, parent):
        parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unfinished-", dir=parent) as folder:
            yield Path(folder)


@contextmanager
def _naming(option: str, folder: Path) -> Iterator[None]:
    """Name the option in what the system says of a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # the folder is not to blame
        raise OSError(
            f"{option}: expected a folder that can be written, got {folder} "
            f"({error.strerror or error}). Give another with {option}."
        ) from error


def write_new(folder: Path, contents: Mapping[str, str | bytes], *, option: str) -> list[Path]:
    """Write all files or none, overwrite nothing, and return the names (see ``publish``).

    Args:
        folder: Where to write, made where it is missing.
        contents: Name and content of each file; a name may have a folder, as ``figures/loss.png``.
        option: The option that names the folder.

    Raises:
        OSError: The files cannot be written.
    """
    with scratch_folder(folder, option=option) as scratch:
        for name, content in contents.items():
            data = content
            if isinstance(data, str):
                data = data.encode("utf-8", "surrogateescape")  # file names that are no UTF-8
            (scratch / name).parent.mkdir(exist_ok=True)
            (scratch / name).write_bytes(data)
        names = dict.fromkeys(Path(name).parts[0] for name in contents)
        return publish({scratch / name: folder / name for name in names})


def write_folder(folder: Path | None, contents: Mapping[str, str | bytes], *, name: str) -> Path:
    """Write files into a new folder, and return it.

    Args:
        folder: The folder that ``--out`` names; None for ``lightning_logs/<name>_<number>``.
        contents: Name and content of each file.
        name: What kind of results they are.

    Raises:
        OSError: The files cannot be written.
    """
    if folder is None:
        folder = claim_run_folder(Path("lightning_logs"), name, option="--out")
        write_new(folder, contents, option="--out")
        return folder
    folder = folder.resolve()  # else a name that ends in .. would lead elsewhere
    inside = {f"{folder.name}/{file}": content for file, content in contents.items()}
    [folder] = write_new(folder.parent, inside, option="--out")
    return folder


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
            f"--ckpt_path {file}: expected a checkpoint file, as lightning_logs/version_0/checkpoints/best.ckpt, got "
            f"{'a folder' if Path(file).is_dir() else 'no such file'}"
        )
    if not is_zipfile(file):
        raise ValueError(
            f"--ckpt_path {file}: expected a checkpoint of this project, got another file or a part of one"
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
        raise ValueError(f"--ckpt_path {file}: expected what was saved, got a damaged file. Copy it again.") from error
    except UnpicklingError as error:  # torch's own words advise to load it nevertheless
        raise ValueError(f"--ckpt_path {file}: expected weights and plain values, got code or other objects") from error
    except KeyError as error:
        raise ValueError(
            f"--ckpt_path {file}: expected a checkpoint of this project, got one without {error}"
        ) from error
    except Exception as error:  # whatever another file leads torch to
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--ckpt_path {file}: expected a checkpoint of this project, got {reason}") from error
    return checkpoint


def best_epoch(run: Path) -> int | None:
    """Return the epoch, counted from 0, of a run's best checkpoint; None for a run without one."""
    file = run / "checkpoints" / "best.ckpt"
    return int(torch.load(file, map_location="cpu", weights_only=True)["epoch"]) if file.is_file() else None


def stored_config(checkpoint: dict[str, Any], verb: str, *, ckpt_path: str) -> dict[str, Any]:
    """Return what a checkpoint says of the run it comes from: all for ``fit``, model and data for the other verbs.

    Args:
        checkpoint: What ``read_checkpoint`` returns.
        verb: The verb that asks.
        ckpt_path: The checkpoint's file, for errors.

    Raises:
        ValueError: The configuration names code.
    """
    config: dict[str, Any] = yaml.safe_load(checkpoint.get("config", "{}"))
    if not str(config.get("model", {}).get("class_path", "flowers.")).startswith("flowers."):
        # A class from elsewhere is code; it runs only if somebody types its name.
        raise ValueError(f"--ckpt_path {ckpt_path}: its model is no part of this package; give it with --model")
    # For the same reason optimizer, callbacks, loggers and plug-ins have to be typed again.
    trainer = config.get("trainer", {})
    plain = {key: value for key, value in trainer.items() if key in _PLAIN_TRAINER_OPTIONS}
    kept = {key: value for key, value in config.items() if key not in ("optimizer", "lr_scheduler")} | {
        "trainer": plain
    }
    if not isinstance(config.get("data", {}).get("augment", {}), dict) or _names_code(kept):
        raise ValueError(f"--ckpt_path {ckpt_path}: its configuration names code other than a model of this package")
    if verb != "fit":
        kept = {key: kept[key] for key in ("model", "data") if key in kept}
        kept.setdefault("data", {})["crop_size"] = None  # nothing is cropped, and another image size may be typed
    return kept


def _names_code(config: dict[str, Any]) -> bool:
    """Return whether anything but the model is a class to import."""
    inside = [config.get("model", {}).get("init_args", {}), *(v for key, v in config.items() if key != "model")]
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
        given: The configuration of the model, of the command line and its files over the checkpoint's.
        stored: The checkpoint's own.
        ckpt_path: The checkpoint's file, for the error.

    Raises:
        ValueError: The networks differ; both are named.
    """
    if not stored:
        return
    stored_options = _network_options(stored)
    given_options = _network_options(given)
    # An option that is newer than the checkpoint says nothing about it.
    common = stored_options.keys() & given_options.keys()
    if stored["class_path"] == given["class_path"] and all(stored_options[n] == given_options[n] for n in common):
        return
    networks = []
    for model, options in ((stored, stored_options), (given, given_options)):
        words = [f"{name} {value}" for name, value in options.items()]
        networks.append(" ".join([model["class_path"].removeprefix("flowers.tasks."), *words]))
    raise ValueError(
        f"--ckpt_path {ckpt_path}: its network is {networks[0]}, the options (or a --config) make {networks[1]}. "
        f"Leave out what makes another network, or leave out --ckpt_path to train a new one."
    )


def _network_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that make a network; a tuple is a list, as in YAML."""
    options = {}
    for name, value in model.get("init_args", {}).items():
        if name in _NETWORK_OPTIONS:
            options[name] = list(value) if isinstance(value, tuple) else value
    return options


def check_optimizer(given: Mapping[str, Any], checkpoint: Mapping[str, Any], *, ckpt_path: str) -> None:
    """Refuse to resume a run without the optimizer that it was given: a checkpoint names no code to run.

    Args:
        given: The configuration of ``fit``.
        checkpoint: What ``read_checkpoint`` returns.
        ckpt_path: The checkpoint's file, for the error.

    Raises:
        ValueError: ``--optimizer`` or ``--lr_scheduler`` are missing; the error says what to give again.
    """
    config = yaml.safe_load(checkpoint.get("config", "{}"))
    words = []
    for name in ("optimizer", "lr_scheduler"):
        stored = config.get(name)
        if stored and not given.get(name):
            words.append(f"--{name} {stored['class_path']}")
            options = stored.get("init_args", {}).items()
            words += [f"--{name}.{option} {shlex.quote(str(value))}" for option, value in options if value is not None]
    if words:
        raise ValueError(
            f"--ckpt_path {ckpt_path}: its run was given an optimizer or a schedule of its own, which a checkpoint "
            f"does not bring along. Give again: {' '.join(words)}"
        )


def why_finished(
    checkpoint: Mapping[str, Any], *, max_epochs: int, min_epochs: int | None, monitor: str, patience: int
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
        raise ValueError("--ckpt_path: expected a checkpoint to resume from, got one without the state of a training")
    num_epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if 0 <= max_epochs <= num_epochs:
        return f"it has trained {num_epochs} epochs, --trainer.max_epochs is {max_epochs}"
    for key, state in checkpoint.get("callbacks", {}).items():
        is_early_stopping = key.startswith("EarlyStopping") and f"'{monitor}'" in key
        if is_early_stopping and state["wait_count"] >= patience and num_epochs >= (min_epochs or 0):
            return f"early stopping ended it after {num_epochs} epochs, --early_stopping.patience is {patience}"
    return ""
