"""``python -m flowers compare``: compare several runs."""

import json
import os
import re
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from flowers import evaluation
from flowers.checkpoint import read_config
from flowers.cli.option_errors import flat_options
from flowers.cli.photo_picture import photo_picture
from flowers.cli.print_markdown import print_markdown
from flowers.data import read_manifest
from flowers.run_folder import write_folder


def compare(runs: list[str], *, out: Path | None = None) -> None:
    """Compare the scores, curves and options of runs, with McNemar's test on shared test images.

    Args:
        runs: Two or more run folders, such as lightning_logs/version_0.
        out: New folder for the results; by default the next free lightning_logs/compare_<n>.

    Raises:
        ValueError: A folder is not a run folder, or a file in it is damaged.
        FileExistsError: The folder for the results exists.
        OSError: A folder or file cannot be read or written.
    """
    folders = list(map(Path, runs))
    if len(set(map(Path.resolve, folders))) < max(2, len(folders)):
        raise ValueError(f"runs: expected two or more different run folders, got {' '.join(runs)}")
    if out is not None and out.exists():
        raise FileExistsError(f"--out {out}: the folder exists. Give another name.")
    parent = os.path.commonpath([folder.absolute().parent for folder in folders])
    results = []
    for folder in folders:
        results.append(read_run(folder, name=os.path.relpath(folder.absolute(), parent)))
    root = Path(results[0].config.get("data.root") or ".")
    files = evaluation.comparison_files(results, partial(photo_picture, root))
    target = write_folder(out, files, name="compare")
    print_markdown(str(files["compare.md"]))
    print(f"See {os.path.relpath(target / 'compare.html')}")


def read_run(folder: Path, *, name: str) -> evaluation.Run:
    """Return the results in a run folder.

    Args:
        folder: The run folder; if the run was tested several times, the newest test is read.
        name: Name of the run.

    Raises:
        ValueError: The folder has neither predictions nor curves, or is that of a cross-validation.
    """
    if (folder / "summary.json").exists():
        raise ValueError(f"{folder}: expected one run, got a cross-validation; see its summary.md")
    tests = {}
    for file in folder.glob("*.csv"):
        if match := re.fullmatch(r"predictions(?:-(\d+))?\.csv", file.name):
            tests[int(match[1] or 1)] = file
    curves = evaluation.read_history(folder) if folder.is_dir() else {}
    if not tests and not curves:
        raise ValueError(f"{folder}: expected a run folder, such as lightning_logs/version_0")
    if not curves:
        print(f"{name}: no curves can be read")
    if not tests:
        print(f"{name} is not tested, run: python -m flowers test --ckpt_path {quote(str(folder))}")
    newest = tests.get(max(tests, default=1), folder / "predictions.csv")
    predictions = evaluation.read_predictions(newest) if tests else None
    if len(tests) > 1:
        print(f"{name} was tested {len(tests)} times: {newest.name}, the newest, is compared")
    report = newest.name.replace("predictions", "report").replace(".csv", ".json")
    manifest = folder / "manifest.csv"
    sha256 = {}
    if manifest.is_file():
        sha256 = {row.path: row.sha256 for row in read_manifest(manifest)}
    return evaluation.Run(
        name=name,
        predictions=predictions,
        curves=curves,
        seconds=evaluation.training_seconds(folder),
        config=_options(folder / "config.yaml"),
        checkpoint=_checkpoint_of(folder / report),
        sha256=sha256,
    )


def _checkpoint_of(report: Path) -> str:
    """Return the name of the checkpoint in a report, or an empty text."""
    try:
        return str(json.loads(report.read_text(encoding="utf-8"))["details"]["Test"]["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _options(file: Path) -> dict[str, Any]:
    """Return the options in a configuration file by their full names; empty if it is missing."""
    if not file.is_file():
        return {}
    try:
        return dict(flat_options(read_config(file.read_text(encoding="utf-8"))))
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{file}: expected a configuration, got {reason}") from error
