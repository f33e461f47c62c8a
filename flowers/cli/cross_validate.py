"""``python -m flowers cross_validate``: train and test on every fold, with several seeds."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from flowers import evaluation
from flowers.cli.option_errors import option_values
from flowers.cli.print_markdown import print_markdown
from flowers.run_folder import last_checkpoint, write_new

# The predictions by seed and test fold.
Runs = dict[tuple[int, int], evaluation.PredictionTable]


def cross_validate(
    *,
    folds: int = 5,
    seeds: int = 3,
    out: Path = Path("lightning_logs/cross_validation"),
    fit_options: list[str] | None = None,
) -> None:
    """Train and test on every fold with several seeds.

    All other options, such as --config FILE and --data.root DIR, are those of fit. The same command
    resumes an interrupted cross-validation. Writes summary.md, summary.json and predictions.csv; if
    they exist, the new files get the next free number.

    Args:
        folds: Number of folds, at least 2; each is the test split once.
        seeds: Number of trainings of each fold.
        out: Folder of the results.
        fit_options: Options of fit, with at least one configuration.

    Raises:
        ValueError: An option is out of its range, or the folder has other contents.
        OSError: A file cannot be read or written.
        SystemExit: A run failed; finished runs are kept.
    """
    options = fit_options or []
    configs = option_values(options, "-c", "--config")
    if not configs:
        raise ValueError("--config: expected a configuration of fit, such as configs/cnn.yaml")
    if folds < 2 or seeds < 1 or any(word.startswith("--data.fold") for word in options):
        raise ValueError(
            "--folds, --seeds: expected at least 2 folds and 1 seed, without --data.folds or "
            "--data.fold"
        )
    texts = [Path(file).read_text(encoding="utf-8") for file in configs]
    settings = {"folds": folds, "options": options, "configs": texts}
    settings_file = out / "settings.json"
    earlier = _read_settings(settings_file)
    out.mkdir(parents=True, exist_ok=True)
    if not earlier and any(out.glob("[!.]*")):
        raise ValueError(f"--out {out}: expected a new folder, got one with other files")
    if any(out.rglob("*.ckpt")) and not settings.items() <= earlier.items():
        raise ValueError(f"--out {out}: a cross-validation with other settings has this folder")
    try:
        with FileLock(out / ".lock").acquire(timeout=0):
            unfinished = out / ".settings.json.partial"
            unfinished.write_text(json.dumps(settings))
            unfinished.replace(settings_file)
            runs = _run_all(out, options, folds=folds, seeds=seeds)
            results = evaluation.summary_files(runs)
            files = write_new(out, results, option="--out")
    except Timeout:
        raise ValueError(f"--out {out}: another cross-validation writes into it") from None
    print()
    print_markdown(results["summary.md"])
    print(f"\nWritten to {out}: {', '.join(file.name for file in files)}")


def _run_all(out: Path, options: list[str], *, folds: int, seeds: int) -> Runs:
    """Return the predictions of each seed and test fold; finished runs are not repeated."""
    runs = {}
    keys = list(product(range(seeds), range(folds)))
    # disable=None: a bar only on a terminal
    for seed, fold in tqdm(keys, desc="Training and testing", unit="fold", disable=None):
        folder = out / f"seed_{seed}-fold_{fold}"
        if not (folder / "predictions.csv").exists():
            words = [*options, "--data.folds", str(folds), "--data.fold", str(fold)]
            _run_fold(folder, [*words, "--seed_everything", str(seed)])
        runs[seed, fold] = evaluation.read_predictions(folder / "predictions.csv")
        accuracy = f"test accuracy {runs[seed, fold].correct.mean():.1%}"
        tqdm.write(f"seed {seed + 1} of {seeds}, fold {fold + 1} of {folds}: {accuracy}")
        sys.stdout.flush()
    return runs


def _run_fold(folder: Path, options: list[str]) -> None:
    """Train, or resume a training, and test its best checkpoint."""
    folder.mkdir(exist_ok=True)
    trained = folder / "trained"
    if not trained.exists():
        words = ["--trainer.default_root_dir", str(folder), "--ckpt_path", "last"]
        _run_command(folder, "fit", *options, *words)
        trained.touch()
    last = Path(last_checkpoint(folder) or folder / "checkpoints" / "last.ckpt")
    words = ["--ckpt_path", str(last.parents[1]), "--report.folder", str(folder)]
    # Not needed: audit --predictions finds label issues from all folds.
    _run_command(folder, "test", *words, "--report.num_label_issues", "0")


def _run_command(folder: Path, *words: str) -> None:
    """Run a command in a process of its own, with its output in the folder's log."""
    log = folder / "log.txt"
    try:
        with log.open("ab") as output:
            command = [sys.executable, "-m", "flowers", *words]
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=True)
    except subprocess.CalledProcessError as error:
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        print("\n" + "\n".join(last), file=sys.stderr)
        print(f"{words[0]} failed, see {log}. The same command resumes it.", file=sys.stderr)
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        print(f"\nInterrupted. The same command resumes from {folder.parent}.", file=sys.stderr)
        raise


def _read_settings(file: Path) -> dict[str, Any]:
    """Return the settings of an interrupted cross-validation, or nothing."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(content, dict) and content.keys() >= {"folds", "options", "configs"}
    return content if is_ours else {}
