"""``python -m flowers predict --data.predict_path``: answers about any images, from a checkpoint alone."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from flowers.data import find_images, load_thumbnail
from flowers.evaluation import gallery_figure
from flowers.inference import Classification, FlowerPredictor
from flowers.runs import check_new
from flowers.tasks import TestTimeAugmentation

_PURPOSE = (
    "Classify images: files, folders, patterns. Without --data.predict_path the checkpoint's test split is classified, "
    "with the options of python -m flowers test --help and --predictions.file."
)
_SHOWN = 100


def main(args: list[str]) -> int:
    """Run the verb and return the exit status: 0, or 1 if files could not be read.

    Args:
        args: The options, as on the command line.

    Raises:
        FileExistsError: A file to write exists.
        ValueError: The checkpoint is none, or there are no images.
        OSError: A file cannot be read or written.
    """
    parser = ArgumentParser(prog="python -m flowers predict", allow_abbrev=False, description=_PURPOSE)
    parser.add_argument(
        "--ckpt_path", required=True, help="checkpoint, as lightning_logs/version_0/checkpoints/best.ckpt"
    )
    parser.add_argument("--data.predict_path", nargs="+", required=True, help="files, folders or patterns")
    parser.add_argument("--data.batch_size", type=int, default=32, help="images at once (32)")
    parser.add_argument("--predictions.file", default="predictions.csv", help="CSV to write, with a .json beside it")
    parser.add_argument("--predictions.contact_sheet", help=f"PNG to write with the first {_SHOWN} images")
    parser.add_argument("--model.tta", choices=get_args(TestTimeAugmentation), help="views of each image to look at")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:<n>")
    options = vars(parser.parse_args(args))
    table = Path(options["predictions.file"])
    sheet = options["predictions.contact_sheet"]
    if table.suffix == ".json":
        parser.error(f"--predictions.file {table}: expected the name of a CSV file; the JSON file is written beside it")
    targets = {table: "file", table.with_suffix(".json"): "file"} | ({Path(sheet): "contact_sheet"} if sheet else {})
    for file, option in targets.items():
        check_new(file, option=f"--predictions.{option}")
    if options["data.batch_size"] < 1:
        parser.error(f"--data.batch_size: expected at least 1, got {options['data.batch_size']}")
    files = find_images(options["data.predict_path"], option="--data.predict_path")
    settings = {"device": options["device"], "batch_size": options["data.batch_size"], "tta": options["model.tta"]}
    predictor = FlowerPredictor(options["ckpt_path"], **settings)
    answers = tqdm(predictor.stream(files), total=len(files), desc="Classifying", unit="image", disable=None)
    errors = write_answers(table, zip(files, answers, strict=True), class_names=predictor.class_names)
    if sheet:
        contact_sheet(files[:_SHOWN], predictor).savefig(sheet, dpi=100)
        print(f"{sheet} shows {min(len(files), _SHOWN):,} of the {len(files):,} images")
    print(f"{len(files) - errors:,} images classified, {errors:,} could not be read: {', '.join(map(str, targets))}")
    return 1 if errors else 0


def write_answers(
    file: Path, answers: Iterable[tuple[str, Classification | OSError]], *, class_names: Sequence[str]
) -> int:
    """Write answers as CSV, and as JSON beside it, while they come; return how many are errors.

    Both files are there when they are whole, and not before.

    Args:
        file: The CSV file.
        answers: Paths, and what was found of them.
        class_names: Names of the K classes.
    """
    errors, partial = 0, [file.with_name(f"{name.name}.partial") for name in (file, file.with_suffix(".json"))]
    with (
        partial[0].open("w", newline="", encoding="utf-8", errors="surrogateescape") as table,
        partial[1].open("w", encoding="utf-8", errors="surrogateescape") as listing,
    ):
        writer = csv.writer(table)
        writer.writerow(["path", "predicted", "probability", "rejected", "error", *class_names])
        for number, (path, answer) in enumerate(answers):
            errors += isinstance(answer, OSError)
            row = _row(path, answer)
            writer.writerow([*row.values(), *_probabilities(answer, class_names)])
            record = row | {"probabilities": answer.probabilities if isinstance(answer, Classification) else None}
            listing.write(("[\n" if number == 0 else ",\n") + json.dumps(record))
        listing.write("\n]\n")
    for temporary, target in zip(partial, (file, file.with_suffix(".json")), strict=True):
        temporary.replace(target)
    return errors


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
            titles.append(f"{answer.label}, {answer.probability:.0%}{' (rejected)' if answer.rejected else ''}")
        else:
            images.append(np.full((8, 8, 3), 128, dtype=np.uint8))
            titles.append("cannot be read")
    names = ["/".join(Path(file).parts[-2:]) for file in files]
    captions = [f"{name}\n{title}" for name, title in zip(names, titles, strict=True)]
    return gallery_figure(images, captions, columns=4 if len(files) <= 16 else 10)


def _row(path: str, answer: Classification | OSError) -> dict[str, Any]:
    if isinstance(answer, OSError):
        return {"path": path, "predicted": "", "probability": "", "rejected": "", "error": str(answer)}
    probability = float(f"{answer.probability:.7g}")
    return {
        "path": path,
        "predicted": answer.label,
        "probability": probability,
        "rejected": answer.rejected,
        "error": "",
    }


def _probabilities(answer: Classification | OSError, class_names: Sequence[str]) -> list[str]:
    if isinstance(answer, OSError):
        return [""] * len(class_names)
    return [f"{answer.probabilities[name]:.7g}" for name in class_names]
