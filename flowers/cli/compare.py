"""``python -m flowers compare``: several runs beside each other."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markdown import Markdown

from flowers.data import read_manifest
from flowers.evaluation import (
    Run,
    comparison_figures,
    comparison_html,
    comparison_json,
    comparison_markdown,
    figure_bytes,
    read_history,
    read_predictions,
    training_seconds,
)
from flowers.run_folder import write_folder

_TESTED = re.compile(r"predictions(?:-(\d+))?\.csv")


def compare(runs: list[str], *, out: Path | None = None) -> None:
    """Compare runs: scores, McNemar's test on shared test images, the options that differ, and curves.

    Args:
        runs: Two or more run folders, as lightning_logs/version_0.
        out: New folder for the results; by default the next free lightning_logs/compare_<n>.

    Raises:
        ValueError: A folder is no run's, or a file in it is damaged.
        FileExistsError: The folder for the results exists.
        OSError: A folder or file cannot be read or written.
    """
    folders = [Path(run) for run in runs]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise ValueError(f"runs: expected two or more different run folders, got {' '.join(runs)}")
    if out is not None and out.exists():
        raise FileExistsError(f"--out {out}: it exists. Give another name.")
    named = zip(folders, _names(folders), strict=True)
    results = [read_run(folder, name=name) for folder, name in named]
    text = comparison_markdown(results)
    figures = comparison_figures(results)
    contents: dict[str, str | bytes] = {
        "compare.html": comparison_html(results, figures),
        "compare.json": comparison_json(results),
        "compare.md": text,
    }
    for title, figure in figures.items():
        contents[f"{title.replace(' ', '_')}.png"] = figure_bytes(figure)
    target = write_folder(out, contents, name="compare")
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        print(text)
    print(f"Look at {os.path.relpath(target / 'compare.html')}")


def read_run(folder: Path, *, name: str) -> Run:
    """Return what a run folder holds.

    Args:
        folder: The folder; where it was tested several times the newest predictions count.
        name: What to call the run.

    Raises:
        ValueError: There are neither predictions nor curves in it.
    """
    if (folder / "summary.json").exists():
        raise ValueError(
            f"{folder}: expected the folder of one run; a cross-validation has its own summary.md"
        )
    tested = sorted(
        filter(_TESTED.fullmatch, (file.name for file in folder.glob("predictions*.csv"))),
        key=_number,
    )
    curves = read_history(folder) if folder.is_dir() else {}
    if not tested and not curves:
        raise ValueError(
            f"{folder}: expected a run folder with curves or predictions, as lightning_logs/version_0"
        )
    if not curves:
        print(f"{name}: no curves can be read")
    if len(tested) > 1:
        print(f"{name} was tested {len(tested)} times: {tested[-1]} is the newest, and compared")
    report = folder / (
        tested[-1].replace("predictions", "report").replace(".csv", ".json")
        if tested
        else "report.json"
    )
    return Run(
        name=name,
        predictions=read_predictions(folder / tested[-1]) if tested else None,
        curves=curves,
        seconds=training_seconds(folder),
        config=_options(folder / "config.yaml"),
        checkpoint=_checkpoint_of(report),
        sha256=_checksums(folder / "manifest.csv"),
    )


def _checkpoint_of(report: Path) -> str:
    """Return the name of the checkpoint that a report speaks of; empty where it does not say, or cannot be read."""
    try:
        return str(json.loads(report.read_text(encoding="utf-8"))["facts"]["Test"]["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _number(file: str) -> int:
    """Return which test of a run wrote a file."""
    found = _TESTED.fullmatch(file)
    assert found is not None
    return int(found[1] or 1)


def _names(folders: list[Path]) -> list[str]:
    """Return the paths without what the folders around them have in common."""
    common = os.path.commonpath([folder.absolute().parent for folder in folders])
    return [os.path.relpath(folder.absolute(), common) for folder in folders]


def _checksums(file: Path) -> dict[str, str]:
    return {row.path: row.sha256 for row in read_manifest(file)} if file.is_file() else {}


def _options(file: Path) -> dict[str, Any]:
    """Return the options of a configuration by their full names; of a file that is missing, none."""
    if not file.is_file():
        return {}
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{file}: expected a configuration, got {str(error).partition(chr(10))[0]}"
        ) from error
    options: dict[str, Any] = {}
    stack = [("", config)] if isinstance(config, dict) else []
    while stack:
        prefix, value = stack.pop()
        if isinstance(value, dict) and value:
            stack += [(f"{prefix}.{key}".removeprefix("."), inner) for key, inner in value.items()]
        else:
            options[prefix] = value
    return options
