"""Train and test on every fold with several seeds; started again, it goes on where it was interrupted.

python scripts/cross_validate.py --config configs/cnn.yaml --folds 5 --seeds 3 --out lightning_logs/cross_validation

Other options, as --data.root DIR, go to fit. Writes summary.md, summary.json and predictions.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from flowers.evaluation import pool, predictions_csv, read_predictions, summary_json, summary_markdown
from flowers.runs import write_new

parser = argparse.ArgumentParser(allow_abbrev=False, epilog="Other options, as --data.root DIR, go to fit.")
parser.add_argument("--config", action="append", required=True, type=Path, help="configuration of fit")
parser.add_argument("--folds", type=int, default=5, help="parts that test in turn, at least 2 (5)")
parser.add_argument("--seeds", type=int, default=3, help="trainings of each fold (3)")
parser.add_argument("--out", type=Path, default=Path("lightning_logs/cross_validation"), help="folder of the results")
args, options = parser.parse_known_args()
if missing := [str(config) for config in args.config if not config.is_file()]:
    parser.error(f"--config {missing[0]}: expected a file")
if args.folds < 2 or args.seeds < 1 or any(word.startswith("--data.fold") for word in options):
    parser.error(
        "--folds, --seeds: expected at least 2 folds and 1 seed, and no --data.fold or --data.folds beside them"
    )


def run_verb(*words: object) -> None:
    """Run a verb in a process of its own."""
    try:
        subprocess.run([sys.executable, "-m", "flowers", *map(str, words)], check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)  # it has said why
    except KeyboardInterrupt:
        sys.exit(f"Interrupted. What is done lies in {args.out}; the same command goes on from there.")


def newest_run(folder: Path) -> Path:
    """Return the checkpoints' folder of the newest run."""
    runs = sorted(folder.glob("lightning_logs/version_*"), key=lambda run: int(run.name.rpartition("_")[2]))
    return (runs[-1] if runs else folder) / "checkpoints"


def predict_fold(folder: Path, fold: int, seed: int) -> Path:
    """Return the predictions for a test fold; the network is trained first, or trained on, where they are missing."""
    file = folder / "predictions.csv"
    trained = folder / "trained"
    print(f"seed {seed + 1} of {args.seeds}, fold {fold + 1} of {args.folds}", flush=True)
    if not trained.exists():
        configs = [word for config in args.config for word in ("--config", config)]
        own = ["--seed_everything", seed, "--data.folds", args.folds, "--data.fold", fold]
        last, new = newest_run(folder) / "last.ckpt", [*configs, *options, *own, "--trainer.default_root_dir", folder]
        run_verb("fit", *(["--ckpt_path", last] if last.exists() else new))
        trained.touch()
    if not file.exists():
        run_verb("predict", "--ckpt_path", newest_run(folder) / "best.ckpt", "--predictions.file", file)
    return file


def read_stored() -> dict[str, Any]:
    """Return what an earlier start stored; nothing, where there was none."""
    try:
        content = json.loads(stored.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and content.keys() >= settings.keys() else {}


def store(results: dict[str, list[str]]) -> None:
    """Store the settings, and the file and checksum of each result."""
    replace(stored, json.dumps(settings | {"results": results}))


def replace(file: Path, text: str) -> None:
    """Replace a file by another at once."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    partial.replace(file)


def checksum(file: Path) -> str:
    """Return the checksum of a file; none where it is missing."""
    return sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def cross_validate(earlier: dict[str, list[str]]) -> None:
    """Train, test and write the results, in place of earlier ones unless somebody has edited them."""
    keys = [(seed, fold) for seed in range(args.seeds) for fold in range(args.folds)]
    runs = {(s, f): read_predictions(predict_fold(args.out / f"seed_{s}-fold_{f}", f, s)) for s, f in keys}
    summary = summary_markdown(runs)
    results = {
        "summary.md": summary,
        "summary.json": summary_json(runs),
        "predictions.csv": predictions_csv(pool(runs)),
    }
    written = {}
    for name, text in results.items():
        earlier_name, earlier_checksum = earlier.get(name, ["", ""])
        file = args.out / earlier_name
        if earlier_checksum and checksum(file) == earlier_checksum:
            replace(file, text)
        else:
            [file] = write_new(args.out, {name: text}, option="--out")
        written[name] = [file.name, checksum(file)]
    store(written)
    print(f"{summary}\nWritten to {args.out}: {', '.join(file for file, _ in written.values())}")


settings = {"folds": args.folds, "options": options, "configs": [config.read_text() for config in args.config]}
stored = args.out / "settings.json"
earlier = read_stored()
args.out.mkdir(parents=True, exist_ok=True)
if not earlier and any(not file.name.startswith(".") for file in args.out.iterdir()):
    parser.error(f"--out {args.out}: expected a new folder or that of a cross-validation, got one with other files")
stored_settings = {name: earlier.get(name) for name in settings}
if any(args.out.rglob("*.ckpt")) and stored_settings != settings:
    parser.error(f"--out {args.out}: a cross-validation with other settings lies there; give another folder")
try:
    lock = FileLock(args.out / ".lock").acquire(timeout=0)
except Timeout:
    parser.error(f"--out {args.out}: another cross-validation writes into it; wait, or give another folder")
try:
    with lock:
        results = read_stored().get("results", {})
        store(results)
        cross_validate(results)
except OSError as error:
    sys.exit(f"{error}\nWhat is done lies in {args.out}; the same command goes on from there.")
