"""Writes the report of a test."""

from __future__ import annotations

import io
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from PIL import Image

from flowers.callbacks.collect_predictions import CollectsPredictions, as_predictions, is_all
from flowers.callbacks.console import print_classes
from flowers.data import FlowersDataModule, read_credits, to_float
from flowers.evaluation import (
    Example,
    PredictionTable,
    Rejection,
    Report,
    best_successes,
    figure_bytes,
    grad_cam,
    predictions_csv,
    read_history,
    report_figures,
    report_html,
    report_json,
    report_markdown,
    report_numbers,
    training_seconds,
    worst_mistakes,
)
from flowers.run_folder import write_new
from flowers.tasks import ClassificationTask, Prediction


class WriteReport(CollectsPredictions):
    """Writes ``report.html``, ``.json``, ``.md``, ``predictions.csv`` and ``figures``, all or none.

    Args:
        num_examples: Worst mistakes to show, and as many right predictions.
        folder: Where to write, by default the checkpoint's run folder.
    """

    def __init__(self, num_examples: int = 8, folder: str | None = None) -> None:
        super().__init__()
        if num_examples < 0:
            raise ValueError(f"--report.num_examples: expected 0 or more, got {num_examples}")
        self.num_examples = num_examples
        self.folder = folder
        self._contents: dict[str, str | bytes] = {}
        self._target = Path()
        self._start = 0.0
        self._seconds = 0.0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a folder among the photos, and start the clock.

        Raises:
            ValueError: The report would be written among the photos.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.folder and isinstance(data, FlowersDataModule):
            data.check_outside(Path(self.folder).expanduser(), option="--report.folder")
        self._start = time.perf_counter()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._start

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the report, from the predictions of all processes."""
        collected, data = self.gather(trainer), trainer.datamodule  # type: ignore[attr-defined]
        whole = is_all(trainer.limit_test_batches) and trainer.ckpt_path is not None
        if not (whole and trainer.is_global_zero and isinstance(data, FlowersDataModule)):
            return
        assert isinstance(pl_module, ClassificationTask)
        print("Writing the report ...", flush=True)
        report, run = self._report(collected, trainer, pl_module, data)
        self._target = Path(self.folder).expanduser() if self.folder else run
        temperature = 1.0 if report.temperature is None else report.temperature
        threshold = (pl_module.calibration or {}).get("threshold", 0.0)
        print_classes(report_numbers(report)["classes"])
        drawn = report_figures(report)
        self._contents = {
            "report.html": report_html(report, drawn),
            "report.json": report_json(report),
            "report.md": report_markdown(report),
            # The same probabilities as those of predict.
            "predictions.csv": predictions_csv(
                as_predictions(collected, data, temperature=temperature), threshold=threshold
            ),
        }
        for title, figure in drawn.items():
            self._contents[f"figures/{title.lower().replace(' ', '_')}.png"] = figure_bytes(figure)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the report, now that Lightning has printed what was measured.

        Raises:
            OSError: It cannot be written.
        """
        if self._contents:
            for file in write_new(self._target, self._contents, option="--report.folder"):
                print(f"{file.name:<20} {os.path.relpath(file)}")
            self._contents = {}

    def _report(
        self,
        collected: Prediction,
        trainer: Trainer,
        task: ClassificationTask,
        data: FlowersDataModule,
    ) -> tuple[Report, Path]:
        """Return the report and the folder it belongs into."""
        assert trainer.ckpt_path is not None
        found = as_predictions(collected, data)
        file = Path(trainer.ckpt_path).resolve()
        run = file.parent.parent if (file.parent.parent / "config.yaml").exists() else file.parent
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        mistakes = worst_mistakes(found, self.num_examples)
        successes = best_successes(found, self.num_examples)
        images, overlays, note = _pictures([*mistakes, *successes], found, task, data)
        credit = {
            path: credit.photographer for path, credit in read_credits(data.index.root).items()
        }
        examples = [
            Example(number, image, overlay, credit.get(found.paths[number], ""))
            for number, image, overlay in zip(
                [*mistakes, *successes], images, overlays, strict=True
            )
        ]
        calibration = task.calibration
        rejection = (
            Rejection(*(calibration[name] for name in Rejection._fields)) if calibration else None
        )
        report = Report(
            title=f"Test of {run.name}/{file.name}",
            predictions=found,
            temperature=calibration["temperature"] if calibration else None,
            rejection=rejection,
            facts=self._facts(task, data, checkpoint, file=file, run=run),
            curves=read_history(run),
            marks={file.name: checkpoint["epoch"]},
            mistakes=examples[: len(mistakes)],
            successes=examples[len(mistakes) :],
            overlay_note=note,
        )
        return report, run

    def _facts(
        self,
        task: ClassificationTask,
        data: FlowersDataModule,
        checkpoint: dict[str, Any],
        *,
        file: Path,
        run: Path,
    ) -> dict[str, dict[str, str]]:
        count, seconds = len(data.indices["test"]), training_seconds(run)
        names = dict.fromkeys(
            ["train", "val", "test", "skipped", *np.unique(data.assignment.split).tolist()]
        )
        counts = {name: f"{(data.assignment.split == name).sum():,} images" for name in names}
        fingerprints = {
            name: value
            for name, value in data.state_dict().items()
            if name.endswith("_fingerprint")
        }
        libraries = {
            name: version(name) for name in ("torch", "torchvision", "lightning", "flowers")
        }
        return {
            "Data": {"folder": str(data.index.root), **counts, **fingerprints},
            "Training": {
                "duration": "not recorded" if seconds is None else f"{seconds / 60:.1f} min",
                "checkpoint's epoch": f"{checkpoint['epoch']} (counted from 0)",
            },
            "Test": {
                "checkpoint": file.name,
                "duration": f"{self._seconds:.1f} s, {count / max(self._seconds, 1e-9):,.0f} images/s",
                "device": str(task.device),
                "test-time augmentation": task.tta,
                "parameters": f"{sum(parameter.numel() for parameter in task.net.parameters()):,}",
            },
            "Environment": {
                "python": platform.python_version(),
                **libraries,
                "platform": platform.platform(),
            },
            "Configuration of the training": {"config": checkpoint.get("config", "not recorded")},
        }


def _pictures(
    numbers: list[int], found: PredictionTable, task: ClassificationTask, data: FlowersDataModule
) -> tuple[list[bytes], list[bytes | None], str]:
    """Return images as the network sees them, what it looks at in them, and why that cannot be told, if so."""
    if not numbers:
        return [], [], ""
    pixels = data.images(data.indices["test"][numbers])
    shown = pixels.permute(0, 2, 3, 1).numpy()
    overlays: list[bytes | None] = [None] * len(numbers)
    try:
        classes = torch.from_numpy(found.probs[numbers].argmax(axis=1)).to(task.device)
        heat = (
            grad_cam(task.net, task.net.backbone, to_float(pixels).to(task.device), classes)
            .cpu()
            .numpy()
        )
        note = ""
        red = np.array([255.0, 0.0, 0.0])
        overlays = [
            _jpeg(image + (red - image) * 0.6 * h[:, :, None])
            for image, h in zip(shown, heat, strict=True)
        ]
    except ValueError as error:
        note = f"There are no overlays: {error}."
    return [_jpeg(image) for image in shown], overlays, note


def _jpeg(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
