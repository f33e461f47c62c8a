"""Plot the curves of a run: loss, accuracy and learning rate, with the best epoch marked.

python scripts/plot_history.py lightning_logs/version_0
"""

import argparse
from pathlib import Path

import torch

from flowers.evaluation import figure_bytes, history_figure, read_history
from flowers.run_folder import check_new, write_new

parser = argparse.ArgumentParser(allow_abbrev=False, description="Plot the curves of a run.")
parser.add_argument("run", type=Path, help="run folder, for example lightning_logs/version_0")
parser.add_argument("--out", type=Path, help="PNG, PDF or SVG file to write (RUN/history.png)")
args = parser.parse_args()
out = args.out or args.run / "history.png"
if out.suffix not in (".png", ".pdf", ".svg"):
    parser.error(f"--out {out}: expected a name that ends with .png, .pdf or .svg")
if not args.run.is_dir():
    parser.error(f"RUN {args.run}: expected a run folder, got no folder")
curves = read_history(args.run)
if not any(name.startswith(("train/", "val/")) for name in curves):
    parser.error(f"RUN {args.run}: expected a run folder with TensorBoard files")
try:
    check_new(out)
    marks = {}
    best = args.run / "checkpoints" / "best.ckpt"
    if best.is_file():
        marks[best.name] = torch.load(best, map_location="cpu", weights_only=True)["epoch"]
    image = figure_bytes(history_figure(curves, marks=marks), out.suffix[1:])
    [file] = write_new(out.parent, {out.name: image}, option="--out")
except OSError as error:
    parser.error(str(error))
print(f"Written to {file}")
