"""Train and test on every fold with several seeds; started again, it goes on where it was interrupted.

python scripts/cross_validate.py --config configs/cnn.yaml --folds 5 --seeds 3 --out lightning_logs/cross_validation
Other options, as --data.root DIR, go to fit. Writes summary.md, summary.json and predictions.csv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from flowers.evaluation import pooled_confusion, read_predictions, summarize, summary_markdown

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--config", action="append", default=[], type=Path)
parser.add_argument("--folds", type=int, default=5)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--out", type=Path, default=Path("lightning_logs/cross_validation"))
args, options = parser.parse_known_args()


def flowers(*command: object) -> None:
    """Run a verb in a process of its own."""
    subprocess.run([sys.executable, "-m", "flowers", *map(str, command)], check=True)


def predict_fold(folder: Path, fold: int, seed: int) -> Path:
    """Return the predictions for a test fold; the network is trained first, or trained on, where they are missing."""
    file, partial = folder / "predictions.csv", folder / "partial.csv"
    partial.unlink(missing_ok=True)
    if not file.exists():
        configs = [word for config in args.config for word in ("--config", config)]
        fixed = ["--seed_everything", seed, "--data.folds", args.folds, "--data.fold", fold]
        fixed += ["--trainer.default_root_dir", folder]
        begun = sorted(folder.glob("lightning_logs/version_*/checkpoints/last.ckpt"))
        flowers("fit", *(["--ckpt_path", begun[-1]] if begun else [*configs, *options, *fixed]))
        [best] = folder.glob("lightning_logs/version_*/checkpoints/best.ckpt")
        flowers("predict", "--ckpt_path", best, "--predictions.file", partial)
        partial.rename(file)
    return file


settings = {"folds": args.folds, "options": options, "configs": [config.read_text() for config in args.config]}
args.out.mkdir(parents=True, exist_ok=True)
stored = args.out / "settings.json"
if stored.exists() and json.loads(stored.read_text()) != settings:
    parser.error(f"--out {args.out}: a cross-validation with other settings lies there; give another folder")
stored.write_text(json.dumps(settings))
keys = [(seed, fold) for seed in range(args.seeds) for fold in range(args.folds)]
files = {(seed, fold): predict_fold(args.out / f"seed_{seed}-fold_{fold}", fold, seed) for seed, fold in keys}
runs = {key: read_predictions(file) for key, file in files.items()}
texts = [file.read_text(encoding="utf-8", errors="surrogateescape").partition("\n") for file in files.values()]
pooled = texts[0][0] + "\n" + "".join(rows for _, _, rows in texts)
(args.out / "predictions.csv").write_text(pooled, encoding="utf-8", errors="surrogateescape")
facts = {"scores": {name: score._asdict() for name, score in summarize(runs).items()}}
facts["confusion"] = pooled_confusion(runs).tolist()
(args.out / "summary.json").write_text(json.dumps(facts, indent=2))
(args.out / "summary.md").write_text(summary_markdown(runs), encoding="utf-8")
print(f"{summary_markdown(runs)}\nWritten to {args.out}: summary.md, summary.json, predictions.csv")
