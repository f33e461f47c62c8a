"""``python -m flowers predict --data.predict_path``: answers about any images, from a checkpoint alone."""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning.fabric import Fabric
from matplotlib.figure import Figure
from tqdm import tqdm

from flowers.data import find_images, load_thumbnail, share, summarize_ignored
from flowers.evaluation import figure_bytes, gallery_figure
from flowers.inference import Classification, FlowerPredictor
from flowers.launch import check_num_nodes, launched_devices, plan_devices
from flowers.prediction_files import Part, join_parts
from flowers.runs import check_new, scratch_folder, write_new
from flowers.tasks import TestTimeAugmentation

_PURPOSE = (
    "Classify images: files, folders, patterns. (Without --data.predict_path it is another command: the checkpoint's "
    "test split is classified, from its --data.root, with the options of python -m flowers test.)"
)
_SHOWN, _NAME = 100, 24
_SIZE = "data.batch_size"


def main(args: list[str]) -> int:
    """Run the verb and return the exit status: 0, or 1 if files could not be read.

    Args:
        args: The options, as on the command line.

    Raises:
        FileExistsError: A file to write exists.
        ValueError: The checkpoint is none, there are no images, or no such devices.
        OSError: A file cannot be read or written.
    """
    options = _options(args)
    table, sheet = options["predictions.file"], options["predictions.contact_sheet"]
    batch_size = options[_SIZE]
    files, ignored = find_images(options["data.predict_path"], option="--data.predict_path")
    _check_targets(options)
    fabric = _launch(options)
    rank, world_size = fabric.global_rank, fabric.world_size
    files = fabric.broadcast(files)  # the folder may have changed since
    if ignored and rank == 0:
        print(summarize_ignored(ignored))
    settings = {"device": str(fabric.device), "batch_size": batch_size, "tta": options["model.tta"]}
    predictor = FlowerPredictor(options["ckpt_path"], **settings)
    with _shared_folder(fabric, table.parent) as folder:
        own = share(files, batch_size=batch_size, rank=rank, world_size=world_size)
        silent = None if rank == 0 else True  # None: where there is a terminal
        answers = tqdm(predictor.stream(own), total=len(own), desc="Classifying", unit="image", disable=silent)
        parts = [Part(folder, number) for number in range(world_size)]
        errors = parts[rank].write(zip(own, answers, strict=True), class_names=predictor.class_names)
        total = fabric.all_reduce(torch.tensor(errors), reduce_op="sum")  # returns when all have written
        errors = int(torch.as_tensor(total))
        if rank != 0:
            return 0  # the first process speaks for all
        written = join_parts(table, parts, class_names=predictor.class_names, folder=folder)
    names = ", ".join(map(str, written))
    print(f"{len(files) - errors:,} images classified, {errors:,} could not be read: {names}")
    if sheet:
        shown = np.unique(np.linspace(0, len(files) - 1, num=_SHOWN).astype(int))
        figure = contact_sheet([files[i] for i in shown], predictor)
        content = figure_bytes(figure, sheet.suffix[1:], dpi=100)
        option = "--predictions.contact_sheet"
        [file] = write_new(sheet.parent, {sheet.name: content}, option=option)
        print(f"{file} shows {len(shown):,} of the {len(files):,} images, taken evenly")
    return 1 if errors else 0


@contextmanager
def _shared_folder(fabric: Fabric, parent: Path) -> Iterator[Path]:
    """Make a folder that all processes write into, on the disk of the result; nothing of it is left."""
    folder: AbstractContextManager[Path] = nullcontext(parent)
    if fabric.global_rank == 0:
        folder = scratch_folder(parent, option="--predictions.file")
    with folder as own:
        yield fabric.broadcast(own)


def _options(args: list[str]) -> dict[str, Any]:
    """Parse, and say what is wrong before any work."""
    parser = ArgumentParser(prog="python -m flowers predict", allow_abbrev=False, description=_PURPOSE)
    parser.add_argument(
        "--ckpt_path", required=True, help="checkpoint, as lightning_logs/version_0/checkpoints/best.ckpt"
    )
    parser.add_argument("--data.predict_path", nargs="+", required=True, help="files, folders or patterns")
    parser.add_argument(f"--{_SIZE}", type=int, default=32, help="images at once (32)")
    parser.add_argument(
        "--predictions.file",
        type=Path,
        default=Path("predictions.csv"),
        help="CSV to write, with a .json beside it (predictions.csv)",
    )
    parser.add_argument(
        "--predictions.contact_sheet",
        type=Path,
        help=f"PNG to write with {_SHOWN} of the images, taken evenly",
    )
    parser.add_argument(
        "--model.tta", choices=get_args(TestTimeAugmentation), help="views of each image to look at (the checkpoint's)"
    )
    parser.add_argument(
        "--trainer.accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="auto: GPUs where there are any"
    )
    started = launched_devices()
    parser.add_argument(
        "--trainer.devices",
        default=started.get("devices", "auto"),
        help="number of GPUs or processes, or GPUs as 0,2 (auto: all GPUs)",
    )
    parser.add_argument(
        "--trainer.num_nodes", type=int, default=started.get("num_nodes", 1), help="machines, with srun (1)"
    )
    options = vars(parser.parse_args(args))
    table = options["predictions.file"]
    sheet = options["predictions.contact_sheet"]
    if sheet is not None and (sheet.suffix not in (".png", ".jpg") or sheet == table):
        parser.error(f"--predictions.contact_sheet {sheet}: expected the name of a PNG or JPEG file")
    if not table.name or table.suffix == ".json":
        parser.error(f"--predictions.file {table}: expected the name of a CSV file; the JSON file is written beside it")
    if options[_SIZE] < 1:
        parser.error(f"--{_SIZE}: expected at least 1, got {options[_SIZE]}")
    check_num_nodes(options["trainer.num_nodes"])
    return options


def _check_targets(options: dict[str, Any]) -> None:
    """Refuse to overwrite, before any work."""
    table, sheet = options["predictions.file"], options["predictions.contact_sheet"]
    targets = {table: "file", table.with_suffix(".json"): "file"}
    if sheet:
        targets[sheet] = "contact_sheet"
    for file, option in targets.items():
        check_new(file, option=f"--predictions.{option}")


def _launch(options: dict[str, Any]) -> Fabric:
    """Start the processes; this one becomes the first of them."""
    fabric = plan_devices(**{name: options[f"trainer.{name}"] for name in ("accelerator", "devices", "num_nodes")})
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # who takes part is told by the devices asked for
    threads = torch.get_num_threads()
    fabric.launch()
    # Lightning gives each of several processes fewer, and with other threads the last digit of a sum is another.
    torch.set_num_threads(threads)
    return fabric


def contact_sheet(files: Sequence[str], predictor: FlowerPredictor) -> Figure:
    """Return a figure of images under what the network says of them.

    Args:
        files: The images; those that cannot be read are grey.
        predictor: The network.
    """
    images, titles = [], []
    for file, answer in zip(files, predictor.stream(files), strict=True):
        if isinstance(answer, Classification):
            images.append(np.asarray(load_thumbnail(file, longest=240)))
            titles.append(f"{answer.label}, {answer.probability:.0%}{' rejected' if answer.rejected else ''}")
        else:
            images.append(np.full((8, 8, 3), 128, dtype=np.uint8))
            titles.append("cannot be read")
    names = [name if len(name) <= _NAME else f"...{name[3 - _NAME :]}" for name in (Path(file).name for file in files)]
    captions = [f"{name}\n{title}" for name, title in zip(names, titles, strict=True)]
    return gallery_figure(images, captions, columns=4 if len(files) <= 16 else 10)
