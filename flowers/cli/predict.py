"""``python -m flowers predict``: answers about any photos, from a checkpoint alone."""

from __future__ import annotations

import csv
import logging
import shutil
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from flowers.data import find_images, load_thumbnail, share, summarize_ignored
from flowers.deploy import FlowerPredictor
from flowers.evaluation import (
    PREDICTION_COLUMNS,
    error_row,
    figure_bytes,
    gallery_figure,
    prediction_row,
)
from flowers.runtime import check_num_nodes, launched_devices, plan_devices
from flowers.models import Views
from flowers.run_folder import publish, scratch_folder, write_new
from flowers.tasks import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from lightning.fabric import Fabric
    from matplotlib.figure import Figure

# Up to so many photos each gets a line; of more the classes are counted.
_MAX_LINES = 20
_SHEET_IMAGES = 100
_MAX_NAME = 24  # characters under an image
# File names that are no UTF-8 go through as they are.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def predict(
    photos: list[str],
    *,
    ckpt_path: str,
    out: Path = Path("predictions.csv"),
    contact_sheet: Path | None = None,
    tta: Views | None = None,
    batch_size: int = 32,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: int | str | None = None,
    num_nodes: int | None = None,
) -> int:
    """Classify photos with a checkpoint.

    Prints the three most probable classes of each photo, or a count per class of more than 20, and
    writes all probabilities to a CSV file. The exit status is 1 if a photo could not be read.

    Args:
        photos: Files, folders (with all folders inside) or patterns as '*.jpg'.
        ckpt_path: Checkpoint, or a run folder as lightning_logs/version_0, whose best checkpoint is
            taken.
        out: CSV file to write; if it exists, the new file gets the next free number.
        contact_sheet: PNG or JPEG file to write with up to 100 of the photos, taken evenly.
        tta: Test-time augmentation; by default that of the checkpoint.
        batch_size: Images that the network classifies together.
        accelerator: Kind of device; auto takes GPUs where there are any.
        devices: Number of GPUs or processes, or GPUs as 0,2; by default all GPUs.
        num_nodes: Number of machines, with srun; by default 1.

    Raises:
        ValueError: The checkpoint is none, there are no images, no such devices, or a name is no
            file's.
        OSError: A file cannot be read or written.
    """
    if contact_sheet is not None and (
        contact_sheet.suffix not in (".png", ".jpg") or contact_sheet == out
    ):
        raise ValueError(
            f"--contact_sheet {contact_sheet}: expected the name of a .png or .jpg file"
        )
    if not out.name or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a CSV file")
    files, ignored = find_images(photos, option="photos")
    fabric = _launch(accelerator, devices=devices, num_nodes=num_nodes)
    rank, world_size = fabric.global_rank, fabric.world_size
    files = fabric.broadcast(files)  # the folder may have changed since
    if ignored and rank == 0:
        print(summarize_ignored(ignored))
    predictor = FlowerPredictor(
        ckpt_path, device=str(fabric.device), batch_size=batch_size, tta=tta
    )
    with _shared_folder(fabric, out.parent) as folder:
        own = share(files, batch_size=batch_size, rank=rank, world_size=world_size)
        silent = (
            None if rank == 0 and len(files) > _MAX_LINES else True
        )  # None: where there is a terminal
        answers = tqdm(
            predictor.stream(own), total=len(own), desc="Classifying", unit="image", disable=silent
        )
        with (folder / f"{rank}.csv").open("w", **_TEXT) as rows:
            writer = csv.writer(rows)
            for path, answer in zip(own, answers, strict=True):
                writer.writerow(_row(path, answer, predictor.class_names))
        fabric.barrier()
        if rank != 0:
            return 0  # the first process speaks for all
        whole = folder / "predictions.csv"
        with whole.open("w", **_TEXT) as table:
            csv.writer(table).writerow([*PREDICTION_COLUMNS, *predictor.class_names])
            for number in range(world_size):
                with (folder / f"{number}.csv").open(**_TEXT) as rows:
                    shutil.copyfileobj(rows, table)
        [file] = publish({whole: out})
    errors = _print_answers(file, predictor.class_names, total=len(files))
    if contact_sheet is not None:
        content = figure_bytes(
            _contact_sheet(file, total=len(files)), contact_sheet.suffix[1:], dpi=100
        )
        [sheet] = write_new(
            contact_sheet.parent, {contact_sheet.name: content}, option="--contact_sheet"
        )
        print(f"Contact sheet    {sheet}")
    return 1 if errors else 0


def _launch(accelerator: str, *, devices: int | str | None, num_nodes: int | None) -> Fabric:
    """Start the processes; this one becomes the first of them."""
    started = launched_devices()
    num_nodes = num_nodes or started.get("num_nodes", 1)
    devices = started.get("devices", "auto") if devices is None else devices
    try:
        check_num_nodes(num_nodes)
        fabric = plan_devices(accelerator=accelerator, devices=devices, num_nodes=num_nodes)
    except ValueError as error:  # which speaks of the options of fit
        raise ValueError(str(error).replace("--trainer.", "--")) from error
    logging.getLogger("lightning.fabric").setLevel(
        logging.WARNING
    )  # who takes part is told by the devices asked for
    threads = torch.get_num_threads()
    fabric.launch()
    # Lightning gives each of several processes fewer, and with other threads the last digit of a
    # sum is another.
    torch.set_num_threads(threads)
    return fabric


@contextmanager
def _shared_folder(fabric: Fabric, parent: Path) -> Iterator[Path]:
    """Make a folder that all processes write into, on the disk of the result; nothing of it is left."""
    folder: AbstractContextManager[Path] = nullcontext(parent)
    if fabric.global_rank == 0:
        folder = scratch_folder(parent, option="--out")
    with folder as own:
        yield fabric.broadcast(own)


def _row(path: str, answer: Classification | OSError, class_names: Sequence[str]) -> list[str]:
    if isinstance(answer, OSError):
        return error_row(path, str(answer), class_names)
    probs = [answer.probabilities[name] for name in class_names]
    return prediction_row(path, probs, class_names, rejected=answer.rejected)


def _rows(file: Path) -> Iterator[tuple[dict[str, str], list[float]]]:
    """Yield the first columns of each row of a table of predictions, and its probabilities."""
    with file.open(**_TEXT) as opened:
        rows = csv.reader(opened)
        next(rows)
        for row in rows:
            first = dict(zip(PREDICTION_COLUMNS, row, strict=False))
            probs = (
                [] if first["error"] else [float(prob) for prob in row[len(PREDICTION_COLUMNS) :]]
            )
            yield first, probs


def _print_answers(file: Path, class_names: Sequence[str], *, total: int) -> int:
    """Print what a table of predictions says, and return the number of files that could not be read."""
    counts: Counter[str] = Counter()
    errors = 0
    for row, probs in _rows(file):
        path, is_rejected = row["path"], row["rejected"] == "True"
        if row["error"]:
            errors += 1
            print(f"{path}: cannot be read ({row['error']})")
            continue
        counts["not sure" if is_rejected else row["predicted"]] += 1
        if total <= _MAX_LINES:
            best = np.argsort(probs)[::-1][:3]
            classes = ", ".join(f"{class_names[i]} {probs[i]:.1%}" for i in best)
            print(f"{path}: {'not sure: ' if is_rejected else ''}{classes}")
    if total > _MAX_LINES:
        for name, count in counts.most_common():
            print(f"{count:>9,}  {name}")
    print(f"{total - errors:,} images classified, {errors:,} could not be read: {file}")
    return errors


def _contact_sheet(file: Path, *, total: int) -> Figure:
    """Return a figure of up to 100 images of a table of predictions, each above its class and probability."""
    numbers = {*np.linspace(0, total - 1, num=_SHEET_IMAGES).astype(int).tolist()}
    images = []
    captions = []
    for number, (row, probs) in enumerate(_rows(file)):
        if number not in numbers:
            continue
        if row["error"]:
            images.append(np.full((8, 8, 3), 128, dtype=np.uint8))
            title = "cannot be read"
        else:
            images.append(np.asarray(load_thumbnail(row["path"], longest=240)))
            title = f"{row['predicted']}, {max(probs):.0%}{' (not sure)' if row['rejected'] == 'True' else ''}"
        name = Path(row["path"]).name
        name = name if len(name) <= _MAX_NAME else f"...{name[3 - _MAX_NAME :]}"
        captions.append(f"{name}\n{title}")
    return gallery_figure(images, captions, columns=4 if len(images) <= 16 else 10)
