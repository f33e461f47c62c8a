"""``python -m flowers predict``: classify any photos with a checkpoint."""

import csv
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.fabric import Fabric
from matplotlib.figure import Figure
from tqdm import tqdm

from flowers import evaluation
from flowers.csv_files import csv_cell, csv_name
from flowers.data import allow_megapixels, find_images, load_thumbnail, share, summarize_ignored
from flowers.deploy import FlowerPredictor
from flowers.models import Views
from flowers.printable import printable
from flowers.run_folder import publish, scratch_folder, write_new
from flowers.runtime import check_num_nodes, launched_devices, plan_devices
from flowers.tasks import Classification

# Up to this number of photos, a line is printed for each; for more, a count per class.
_MAX_LINES = 20
_MAX_NAME = 24  # characters of a file name below its image
# surrogateescape keeps file names that are not UTF-8 unchanged.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def predict(
    photos: list[str],
    *,
    ckpt_path: str,
    out: Path = Path("predictions.csv"),
    contact_sheet: Path | None = None,
    tta: Views | None = None,
    batch_size: int = 32,
    max_megapixels: int | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
    devices: int | str | None = None,
    num_nodes: int | None = None,
) -> int:
    """Classify photos with a checkpoint.

    Prints the three most probable classes of each photo, or for more than 20 photos a count per
    class, and writes all probabilities to a CSV file. The exit status is 1 if a photo could not be
    read.

    Args:
        photos: Files, folders (with their subfolders) or patterns such as '*.jpg'.
        ckpt_path: Checkpoint, or a run folder such as lightning_logs/version_0 for its best
            checkpoint.
        out: CSV file to write; if it exists, the new file gets the next free number.
        contact_sheet: PNG or JPEG file to write with up to 100 of the photos, evenly spaced.
        tta: Test-time augmentation; by default that of the checkpoint.
        batch_size: Number of images that the network classifies together.
        max_megapixels: Largest photo that is decoded, in megapixels; by default 179.
        accelerator: Kind of device; auto uses GPUs if there are any.
        devices: Number of GPUs or CPU processes, or GPU indices such as 0,2; by default all GPUs.
        num_nodes: Number of machines, with srun; by default 1.

    Raises:
        ValueError: The file is not a checkpoint, there are no images or no such devices, or --out
            or --contact_sheet is not the name of a file.
        OSError: A file cannot be read or written.
    """
    if not out.name or out.is_dir():
        raise ValueError(f"--out {out}: expected the name of a CSV file")
    if contact_sheet and (contact_sheet.suffix not in (".png", ".jpg") or contact_sheet == out):
        raise ValueError(
            f"--contact_sheet {contact_sheet}: expected a name that ends with .png or .jpg"
        )
    allow_megapixels(max_megapixels)
    files, ignored = find_images(photos, option="photos")
    fabric = _launch(accelerator, devices=devices, num_nodes=num_nodes)
    rank = fabric.global_rank
    files = fabric.broadcast(files)  # the list must be the same in all processes
    if ignored and rank == 0:
        print(summarize_ignored(ignored))
    device = str(fabric.device)
    predictor = FlowerPredictor(ckpt_path, device=device, batch_size=batch_size, tta=tta)
    parent: AbstractContextManager[Path] = nullcontext(out.parent)
    if rank == 0:
        parent = scratch_folder(out.parent, option="--out")
    with parent as scratch:
        folder = fabric.broadcast(scratch)
        own = share(files, batch_size=batch_size, rank=rank, world_size=fabric.world_size)
        results: Iterable[Classification | OSError] = predictor.stream(own)
        if rank == 0 and len(files) > _MAX_LINES:
            # disable=None: a bar only on a terminal
            results = tqdm(results, total=len(own), desc="Classifying", unit="image", disable=None)
        with (folder / f"{rank}.csv").open("w", **_TEXT) as rows:
            writer = csv.writer(rows)
            if rank == 0:
                writer.writerow(evaluation.header_row(predictor.class_names))
            for path, result in zip(own, results, strict=True):
                writer.writerow(map(csv_cell, _row(path, result, predictor.class_names)))
        fabric.barrier()
        if rank != 0:
            return 0  # the first process prints the results of all
        table = folder / "0.csv"
        with table.open("a", **_TEXT) as whole:
            for number in range(1, fabric.world_size):
                with (folder / f"{number}.csv").open(**_TEXT) as rows:
                    shutil.copyfileobj(rows, whole)
        [file] = publish({table: out})
    num_errors = _print_results(file, predictor.class_names, total=len(files))
    if contact_sheet is not None:
        figure = _contact_sheet(file, total=len(files))
        image = evaluation.figure_bytes(figure, contact_sheet.suffix[1:], dpi=100)
        content = {contact_sheet.name: image}
        [sheet] = write_new(contact_sheet.parent, content, option="--contact_sheet")
        print(f"Contact sheet    {sheet}")
    return min(num_errors, 1)


def _launch(accelerator: str, *, devices: int | str | None, num_nodes: int | None) -> Fabric:
    """Launch the processes, unless torchrun or srun did, and return Lightning's Fabric."""
    launched = launched_devices()
    num_nodes = num_nodes or launched.get("num_nodes", 1)
    if devices is None:
        devices = launched.get("devices", "auto")
    check_num_nodes(num_nodes)
    fabric = plan_devices(accelerator=accelerator, devices=devices, num_nodes=num_nodes)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    threads = torch.get_num_threads()
    fabric.launch()
    # With several processes, Lightning reduces the threads of each, which changes rounding errors.
    torch.set_num_threads(threads)
    return fabric


def _row(path: str, result: Classification | OSError, class_names: Sequence[str]) -> list[str]:
    if isinstance(result, OSError):
        return evaluation.error_row(path, str(result), class_names)
    probs = list(result.probabilities.values())
    return evaluation.prediction_row(path, probs, class_names, rejected=result.rejected)


def _rows(file: Path) -> Iterator[tuple[dict[str, str], list[float]]]:
    """Yield the named columns and the probabilities of each row of a predictions.csv."""
    with file.open(**_TEXT) as opened:
        rows = csv.reader(opened)
        next(rows)
        for row in rows:
            columns = dict(zip(evaluation.PREDICTION_COLUMNS, map(csv_name, row), strict=False))
            yield columns, [float(prob) for prob in row[len(columns) :] if prob]


def _print_results(file: Path, class_names: Sequence[str], *, total: int) -> int:
    """Print the results, and return the number of files that could not be read."""
    counts: Counter[str] = Counter()
    num_errors = 0
    for row, probs in _rows(file):
        path = row["path"]
        if row["error"]:
            num_errors += 1
            error = row["error"].removeprefix(f"{path}: ")
            print(printable(f"{path}: cannot be read ({error})"))
            continue
        is_rejected = row["rejected"] == "True"
        counts["not sure" if is_rejected else row["predicted"]] += 1
        if total <= _MAX_LINES:
            prefix = "not sure: " if is_rejected else ""
            best = np.argsort(probs)[::-1][:3]
            classes = ", ".join(f"{class_names[i]} {probs[i]:.1%}" for i in best)
            print(printable(f"{path}: {prefix}{classes}"))
    if total > _MAX_LINES:
        for name, count in counts.most_common():
            print(printable(f"{count:>9,}  {name}"))
    num_images = total - num_errors
    images = "image" if num_images == 1 else "images"
    print(f"{num_images:,} {images} classified, {num_errors:,} could not be read. See {file}")
    return num_errors


def _contact_sheet(file: Path, *, total: int) -> Figure:
    """Return a figure of up to 100 images with class and probability, red if rejected."""
    numbers = {*np.linspace(0, total - 1, num=100).astype(int).tolist()}
    images = []
    captions: list[str] = []
    rejected = []
    for number, (row, probs) in enumerate(_rows(file)):
        if number not in numbers:
            continue
        if row["error"]:
            images.append(np.full((8, 8, 3), 128, dtype=np.uint8))
            title = "cannot be read"
        else:
            images.append(np.asarray(load_thumbnail(row["path"], longest=240)))
            title = f"{row['predicted']}, {max(probs):.0%}"
            if row["rejected"] == "True":
                title += " (not sure)"
                rejected.append(len(captions))
        name = Path(row["path"]).name
        if len(name) > _MAX_NAME:
            name = f"...{name[3 - _MAX_NAME :]}"
        captions.append(f"{printable(name)}\n{title}")
    columns = 4 if len(images) <= 16 else 10
    return evaluation.gallery_figure(images, captions, columns=columns, highlighted=rejected)
