"""Odd values of the options of ``fit``: each is accepted or refused in one line."""

from __future__ import annotations

import re
from collections import Counter
from inspect import signature
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor

from flowers import runtime
from flowers.__main__ import main
from flowers.callbacks import (
    Calibrate,
    EarlyStopping,
    FreezeBackbone,
    LogToTensorBoard,
    SaveBest,
    SaveLast,
    WriteReport,
)
from flowers.data import BatchAugmentation, FlowersDataModule
from flowers.tasks import ClassificationTask, CNNTask

OWNERS = {
    "trainer": (Trainer,),
    "data": (FlowersDataModule,),
    "data.augment": (BatchAugmentation,),
    "model": (CNNTask, ClassificationTask),
    "checkpoint": (SaveBest,),
    "last_checkpoint": (SaveLast,),
    "early_stopping": (EarlyStopping,),
    "lr_monitor": (LearningRateMonitor,),
    "freeze": (FreezeBackbone,),
    "calibration": (Calibrate,),
    "tensorboard": (LogToTensorBoard,),
    "report": (WriteReport,),
}
# Linked to other options, or made by the command line.
SKIPPED = {"data.seed", "early_stopping.mode", "early_stopping.monitor", "model.class_names"}
SKIPPED |= {"model.net", "model.kwargs"}
NUMBERS = ("-5", ".nan", "0")
TEXTS = ("no.such.Thing", "/proc/x", "[]")
# Options that take any number: thresholds of a metric, and a seed.
ANY_NUMBER = {
    "data.split_seed",
    "early_stopping.stopping_threshold",
    "early_stopping.divergence_threshold",
}


@pytest.fixture
def same_threads(monkeypatch):
    monkeypatch.setattr(runtime, "prepare", lambda: None)  # it sets threads, for other tests too


def odd_values() -> list[tuple[str, str]]:
    """Return every option with each of the odd values of its type."""
    pairs = []
    for group, classes in OWNERS.items():
        types = {}
        for owner in classes:
            for name, parameter in signature(owner).parameters.items():
                types[f"{group}.{name}"] = str(parameter.annotation)
        for option, annotation in types.items():
            is_number = re.search(r"\b(int|float)\b", annotation)
            if option not in SKIPPED:
                pairs += [(option, value) for value in (NUMBERS if is_number else TEXTS)]
    return pairs


PAIRS = odd_values()
PARTS = 12


def test_there_are_at_least_250_odd_values():
    assert len(set(PAIRS)) == len(PAIRS) >= 250


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.usefixtures("same_threads")
@pytest.mark.filterwarnings("ignore")
def test_an_odd_value_is_accepted_or_refused_in_one_line(
    part, small_options, synthetic, monkeypatch, capsys
):
    start = Path.cwd()
    options = ["--data.root", str(synthetic), "--trainer.max_epochs", "1"]
    options += ["--trainer.limit_train_batches", "2"]
    counts: Counter[str] = Counter()
    faults = []
    for number, (option, value) in enumerate(PAIRS[part::PARTS]):
        folder = start / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        try:
            status = main(["fit", *small_options, *options, f"--{option}={value}"])
        except SystemExit as ended:
            status = ended.code
        errors = capsys.readouterr().err
        lines = [line for line in errors.splitlines() if line.startswith("flowers: ")]
        counts["accepted" if status == 0 else "refused"] += 1
        given = f"--{option} {value}: {errors[-2000:]}"
        if "Traceback" in errors or status not in (0, 1, 2):
            faults.append(f"traceback {given}")
        elif status and (len(lines) != 1 or option.rpartition(".")[2] not in lines[0]):
            faults.append(f"not one line with the option {given}")
        if status and [*folder.glob("**/version_*")]:
            faults.append(f"run folder {given}")
        if status == 0 and value in NUMBERS[:2] and option not in ANY_NUMBER:
            faults.append(f"accepted {given}")
    print(dict(counts))
    assert not faults, "\n".join(faults)
