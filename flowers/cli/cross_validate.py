"""``python -m flowers cross_validate``: train and test on every fold, with several seeds."""

import json
import subprocess
import sys
import time
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flowers import evaluation
from flowers.cli.option_errors import option_values
from flowers.cli.print_markdown import print_markdown
from flowers.evaluation import FoldPredictions
from flowers.run_folder import last_checkpoint, write_new


def cross_validate(
    *,
    folds: int = 5,
    seeds: int = 3,
    out: Path = Path("lightning_logs/cross_validation"),
    fit_options: list[str] | None = None,
) -> None:
    """Train and test on every fold with several seeds.

    All other options, such as --config FILE and --data.root DIR, are passed to fit. The same
    command resumes an interrupted cross-validation. Writes summary.md, summary.json and
    predictions.csv.

    Args:
        folds: Number of folds, at least 2; each is the test split once.
        seeds: Number of trainings of each fold, with the seeds 0, 1, ...
        out: Folder of the results.
        fit_options: Options of fit, with at least one configuration.

    Raises:
        ValueError: An option is out of its range, or the folder is in use or holds something else.
        OSError: A file cannot be read or written.
        SystemExit: A run failed; finished runs are kept.
    """
    options = fit_options or []
    configs = option_values(options, "-c", "--config")
    if not configs:
        raise ValueError("--config: expected a configuration of fit, such as configs/cnn.yaml")
    if folds < 2 or seeds < 1 or any(word.startswith("--data.fold") for word in options):
        raise ValueError(
            "--folds, --seeds: expected at least 2 folds and 1 seed, and no --data.folds or "
            "--data.fold, which cross_validate sets"
        )
    texts = [Path(file).read_text(encoding="utf-8") for file in configs]
    settings = {"folds": folds, "options": options, "configs": texts}
    settings_file = out / "settings.json"
    earlier = _read_settings(settings_file)
    out.mkdir(parents=True, exist_ok=True)
    if not earlier and any(out.glob("[!.]*")):
        raise ValueError(
            f"--out {out}: expected a new folder or the folder of a cross-validation, got a folder "
            "with other files"
        )
    if any(out.rglob("*.ckpt")) and not settings.items() <= earlier.items():
        raise ValueError(f"--out {out}: a cross-validation with other settings is in this folder")
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            results = earlier.get("results", {})
            _replace(settings_file, json.dumps(settings | {"results": results}))
            runs = _run_all(out, options, folds=folds, seeds=seeds)
            results = _write_results(out, runs, results)
            _replace(settings_file, json.dumps(settings | {"results": results}))
    except Timeout:
        raise ValueError(f"--out {out}: another cross-validation writes into this folder") from None


def _run_all(out: Path, options: list[str], *, folds: int, seeds: int) -> FoldPredictions:
    """Return the predictions of each seed and test fold; finished runs are not repeated."""
    keys = list(product(range(seeds), range(folds)))
    runs = {}
    seconds = []
    for number, (seed, fold) in enumerate(keys):
        print(f"seed {seed + 1} of {seeds}, fold {fold + 1} of {folds}", end="", flush=True)
        start = time.perf_counter()
        folder = out / f"seed_{seed}-fold_{fold}"
        if not (folder / "predictions.csv").exists():
            words = [*options, "--data.folds", str(folds), "--data.fold", str(fold)]
            _run_fold(folder, [*words, "--seed_everything", str(seed)])
            seconds.append(time.perf_counter() - start)
        runs[seed, fold] = evaluation.read_predictions(folder / "predictions.csv")
        print(f": test accuracy {runs[seed, fold].accuracy:.1%}", end="")
        if seconds and number + 1 < len(keys):
            left = sum(seconds) / len(seconds) * (len(keys) - number - 1) / 60
            print(f", {left:.0f} min left", end="")
        print(flush=True)
    return runs


def _run_fold(folder: Path, options: list[str]) -> None:
    """Train on the other folds, or resume this, and test the best checkpoint on the fold."""
    folder.mkdir(exist_ok=True)
    trained = folder / "trained"
    if not trained.exists():
        words = ["--trainer.default_root_dir", str(folder), "--ckpt_path", "last"]
        _run_command(folder, "fit", *options, *words)
        trained.touch()
    last = Path(last_checkpoint(folder) or folder / "checkpoints" / "last.ckpt")
    words = ["--ckpt_path", str(last.parents[1]), "--report.folder", str(folder)]
    # The report needs no label issues: audit --predictions finds them from all folds.
    _run_command(folder, "test", *words, "--report.num_label_issues", "0")


def _run_command(folder: Path, *words: str) -> None:
    """Run a command in a new process, and append its output to the folder's log."""
    log = folder / "log.txt"
    try:
        with log.open("ab") as output:
            command = [sys.executable, "-m", "flowers", *words]
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=True)
    except subprocess.CalledProcessError as error:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        print("\n" + "\n".join(last), file=sys.stderr)
        print(f"{words[0]} failed, see {log}. The same command resumes.", file=sys.stderr)
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        print(f"\nInterrupted. The same command resumes from {folder.parent}.", file=sys.stderr)
        raise


def _read_settings(file: Path) -> dict[str, Any]:
    """Return the settings of an earlier cross-validation in the folder; empty if there is none."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(content, dict) and content.keys() >= {"folds", "options", "configs"}
    return content if is_ours else {}


def _replace(file: Path, text: str) -> None:
    """Write a file atomically."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    partial.replace(file)


def _checksum(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _write_results(
    out: Path, runs: FoldPredictions, earlier: dict[str, list[str]]
) -> dict[str, list[str]]:
    """Write the results. An earlier result is replaced, unless it was edited.

    Args:
        out: Folder of the results.
        runs: The predictions.
        earlier: File name and checksum of each earlier result, as this function returned them.
    """
    texts = evaluation.summary_files(runs)
    written = {}
    for name, text in texts.items():
        earlier_name, earlier_checksum = earlier.get(name, ["", ""])
        file = out / earlier_name
        if earlier_checksum and _checksum(file) == earlier_checksum:
            _replace(file, text)
        else:
            [file] = write_new(out, {name: text}, option="--out")
        written[name] = [file.name, _checksum(file)]
    print()
    print_markdown(texts["summary.md"])
    print(f"\nWritten to {out}: {', '.join(file for file, _ in written.values())}")
    return written
