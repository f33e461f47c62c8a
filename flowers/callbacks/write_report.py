"""Writes the report of a test."""

import os
import platform
import shlex
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

from flowers import evaluation
from flowers.callbacks.collect_predictions import CollectPredictions, as_predictions, is_all
from flowers.callbacks.console import print_classes
from flowers.checkpoint import read_checkpoint
from flowers.data import FlowersDataModule, read_credits, to_float
from flowers.run_folder import write_new
from flowers.tasks import ClassificationTask, Prediction, expect

# Largest number of training images that are evaluated for the report.
_MAX_TRAINING_IMAGES = 10_000


class WriteReport(CollectPredictions):
    """Writes ``report.html``, ``.json``, ``.md``, ``predictions.csv`` and ``figures``, all or none.

    Args:
        num_examples: Number of worst mistakes, and of confident correct predictions, in the report.
        num_label_issues: Number of training images that are shown as possible label errors: those
            with the highest loss. At most 10,000 are evaluated to find them; none without a cache.
        folder: Folder of the report; by default the checkpoint's run folder.
    """

    def __init__(
        self, num_examples: int = 8, num_label_issues: int = 12, folder: str | None = None
    ) -> None:
        super().__init__()
        expect(num_examples >= 0, "num_examples", "0 or more", num_examples)
        expect(num_label_issues >= 0, "num_label_issues", "0 or more", num_label_issues)
        self.num_examples = num_examples
        self.num_label_issues = num_label_issues
        self.folder = folder
        self._start = 0.0
        self._seconds = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the folder, and start the clock.

        Raises:
            ValueError: The report would be written among the photos.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.folder and isinstance(data, FlowersDataModule):
            data.check_outside(Path(self.folder), option="`folder`")
        self._start = time.perf_counter()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._start

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report from the predictions of all processes.

        Raises:
            OSError: The report cannot be written.
        """
        collected = self.gather(trainer)
        data = trainer.datamodule  # type: ignore[attr-defined]
        is_complete = is_all(trainer.limit_test_batches) and trainer.ckpt_path is not None
        if not (is_complete and trainer.is_global_zero and isinstance(data, FlowersDataModule)):
            return
        assert isinstance(pl_module, ClassificationTask)
        print("Writing the report ...", flush=True)
        file = Path(str(trainer.ckpt_path)).resolve()
        report = self._report(collected, pl_module, data, file)
        print_classes(evaluation.class_metrics(report.predictions))
        calibrated = as_predictions(collected, data, temperature=report.temperature or 1.0)
        folder = Path(self.folder or _run_of(file))
        contents = evaluation.report_files(report, calibrated)
        for written in write_new(folder, contents, option="`folder`"):
            print(f"{written.name:<20} {os.path.relpath(written)}")

    def _report(
        self, collected: Prediction, task: ClassificationTask, data: FlowersDataModule, file: Path
    ) -> evaluation.Report:
        run = _run_of(file)
        predictions = as_predictions(collected, data)
        checkpoint = read_checkpoint(file)
        config = checkpoint["config"]
        summary = {"date": datetime.now().astimezone().isoformat(" ", "minutes")}
        if "flowers" in Path(sys.argv[0]).parts[-2:]:  # not if a notebook runs the test
            summary["command"] = f"python -m flowers {shlex.join(sys.argv[1:])}"
        curves = evaluation.read_history(run)
        mistakes = evaluation.worst_mistakes(predictions, self.num_examples)
        successes = evaluation.best_successes(predictions, self.num_examples)
        pictures, note = _examples([*mistakes, *successes], predictions.predicted, task, data)
        calibration = task.calibration or {}
        return evaluation.Report(
            title=f"Test of {run.name}/{file.name}",
            predictions=predictions,
            summary=summary | _recipe(config),
            temperature=calibration.get("temperature"),
            threshold=calibration.get("threshold"),
            details={
                "Data": _data_details(data),
                "Training": _training_details(run, curves, epoch=checkpoint["epoch"]),
                "Test": {"checkpoint": file.name} | self._test_details(task, data),
                "Environment": _environment(),
                "Configuration of the training": {
                    "config": yaml.safe_dump(_without_nulls(config), sort_keys=False)
                },
            },
            curves=curves,
            marks={file.name: checkpoint["epoch"]},
            mistakes={row: pictures[row] for row in mistakes},
            successes={row: pictures[row] for row in successes},
            examples_note=note,
            label_issues=_label_issues(self.num_label_issues, task, data),
        )

    def _test_details(self, task: ClassificationTask, data: FlowersDataModule) -> dict[str, str]:
        images_per_s = len(data.indices["test"]) / max(self._seconds, 1e-9)
        num_parameters = sum(parameter.numel() for parameter in task.net.parameters())
        return {
            "duration": f"{self._seconds:.1f} s, {images_per_s:,.0f} images/s",
            "device": str(task.device),
            "test-time augmentation": task.tta,
            "parameters": f"{num_parameters:,}",
        }


def _run_of(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint, or the parent folder if there is no run folder."""
    folder = checkpoint.parent
    return folder.parent if (folder.parent / "config.yaml").exists() else folder


def _training_details(
    run: Path, curves: dict[str, evaluation.Curve], *, epoch: int
) -> dict[str, str]:
    """Return the duration of the training, the checkpoint's epoch and its validation metrics."""
    details = {"duration": "not recorded", "checkpoint's epoch": f"{epoch} (counted from 0)"}
    seconds = evaluation.training_seconds(run)
    if seconds is not None:
        details["duration"] = f"{seconds / 60:.1f} min"
    for name in ("val/acc", "val/loss"):
        if name in curves:
            values = curves[name].values[np.isclose(curves[name].epochs, epoch + 1)]
            if len(values):
                details[name] = f"{values[-1]:.4f} (the epoch was selected on this split)"
    return details


def _recipe(config: dict[str, Any]) -> dict[str, str]:
    """Summarize network, images and training of a configuration in a line each."""
    if not {"model", "data", "trainer"} <= config.keys():
        return {}
    data = config["data"]
    options = config["model"].get("init_args", {})
    network = config["model"]["class_path"].rpartition(".")[2]
    for name in ("arch", "widths"):
        if name in options:
            network += f", {name} {options[name]}"
    crop_size = data.get("crop_size") or data["image_size"]
    epochs = config["trainer"]["max_epochs"]
    unit = "epoch" if epochs == 1 else "epochs"
    return {
        "network": network,
        "images": f"{data['image_size']} pixels, crops of {crop_size}, batch {data['batch_size']}",
        "training": f"{epochs} {unit}, learning rate {options.get('lr')}",
    }


def _without_nulls(config: Any) -> Any:  # noqa: ANN401
    """Return a configuration without the options that are not set."""
    if not isinstance(config, dict):
        return config
    return {key: _without_nulls(value) for key, value in config.items() if value is not None}


def _environment() -> dict[str, str]:
    environment = {"python": platform.python_version()}
    for library in ("torch", "torchvision", "lightning", "flowers"):
        environment[library] = version(library)
    environment["platform"] = platform.platform()
    return environment


def _data_details(data: FlowersDataModule) -> dict[str, str]:
    details = {"folder": str(data.index.root)}
    split = data.assignment.split
    for name in dict.fromkeys(["train", "val", "test", "skipped", *np.unique(split).tolist()]):
        details[name] = f"{(split == name).sum():,} images"
    for name, value in data.state_dict().items():
        if name.endswith("_fingerprint"):
            details[name] = value
    for number, warning in enumerate(data.checkpoint_warnings, 1):
        details[f"warning {number}"] = warning.replace("`", "")
    return details


def _examples(
    rows: list[int], predicted: NDArray[np.int64], task: ClassificationTask, data: FlowersDataModule
) -> tuple[dict[int, evaluation.Picture], str]:
    """Return test images with Grad-CAM overlays, keyed by row of the predictions, and a note."""
    if not rows:
        return {}, ""
    indices = data.indices["test"][rows]
    images = to_float(data.images(indices)).to(task.device)
    labels = predicted[rows].tolist()
    pictures, note = evaluation.add_overlays(_pictures(indices, data), task.net, images, labels)
    return dict(zip(rows, pictures, strict=True)), note


@torch.inference_mode()
def _label_issues(
    count: int, task: ClassificationTask, data: FlowersDataModule
) -> dict[evaluation.LabelIssue, evaluation.Picture]:
    """Return the training images with the highest loss, without augmentation.

    Returns no images if there is no cache (decoding would be slow) or if the checkpoint was trained
    on other images or with another decoding.
    """
    indices = data.indices["train"]
    indices = indices[:: max(1, -(-len(indices) // _MAX_TRAINING_IMAGES))]
    if not count or not len(indices) or not data.cache or data.checkpoint_warnings:
        return {}
    print(f"Evaluating {len(indices):,} training images for the report ...", flush=True)
    logits = []
    for batch in np.array_split(indices, -(-len(indices) // data.batch_size)):
        images = to_float(data.images(batch).to(task.device))
        logits.append(task.net(images).float().cpu())
    collected = Prediction(torch.from_numpy(indices), torch.cat(logits))
    issues = evaluation.top_losses(as_predictions(collected, data), count)
    pictures = _pictures(indices[[*issues]], data)
    return dict(zip(issues.values(), pictures, strict=True))


def _pictures(indices: NDArray[np.int64], data: FlowersDataModule) -> list[evaluation.Picture]:
    """Return images, decoded and resized as for the network, with links to their files."""
    credits = read_credits(data.index.root)
    pixels = data.images(indices).permute(0, 2, 3, 1).numpy()
    pictures = []
    for index, image in zip(indices, pixels, strict=True):
        path = data.index.paths[index]
        photographer = credits[path].photographer if path in credits else ""
        link = (data.index.root / path).absolute().as_uri()
        jpeg = evaluation.jpeg_bytes(Image.fromarray(image))
        pictures.append(evaluation.Picture(jpeg, path, photographer, link=link))
    return pictures
