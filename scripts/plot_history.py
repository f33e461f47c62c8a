"""Draw the curves of a run: loss, accuracy and learning rate, with the best epoch marked.

python scripts/plot_history.py lightning_logs/version_0
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flowers.checkpoint import best_epoch
from flowers.evaluation import figure_bytes, history_figure, read_history
from flowers.run_folder import check_new, write_new

parser = argparse.ArgumentParser(allow_abbrev=False, description="Draw the curves of a run.")
parser.add_argument("run", type=Path, help="run folder, as lightning_logs/version_0")
parser.add_argument("--out", type=Path, help="PNG, PDF or SVG file to write (RUN/history.png)")
args = parser.parse_args()
out = args.out or args.run / "history.png"
curves = read_history(args.run) if args.run.is_dir() else {}
if not any(name.startswith(("train/", "val/")) for name in curves):
    parser.error(
        f"RUN {args.run}: expected a run folder with TensorBoard's files, as lightning_logs/version_0"
    )
if out.suffix not in (".png", ".pdf", ".svg"):
    parser.error(f"--out {out}: expected a name that ends with .png, .pdf or .svg")
try:
    check_new(out, option="--out")
    best = best_epoch(args.run)
    figure = history_figure(curves, marks={} if best is None else {"best.ckpt": best})
    [file] = write_new(out.parent, {out.name: figure_bytes(figure, out.suffix[1:])}, option="--out")
except OSError as error:
    parser.error(str(error))
print(f"Written to {file}")
