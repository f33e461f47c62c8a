"""``python -m flowers demo``: a page on this machine that classifies photos."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from flowers import evaluation
from flowers.checkpoint import checkpoint_file, read_checkpoint
from flowers.csv_files import csv_text
from flowers.data import load_image, load_thumbnail, read_manifest, to_float
from flowers.deploy import FlowerPredictor
from flowers.evaluation import Bar, Card, Picture, Section

# The page in the frame has a padding of 1rem and is up to 72rem wide.
_RESULTS = """<a download="predictions.csv" href="data:text/csv;base64,{csv}">Download CSV</a>
<iframe title="Results" srcdoc="{page}"
 style="width: min(100% + 2rem, {width}rem); margin-left: -1rem; color-scheme: light dark"
 onload="style.height = contentDocument.documentElement.scrollHeight + 'px'"></iframe>"""
# Ctrl-V anywhere on the page uploads the files in the clipboard.
_PASTE = """() => document.addEventListener("paste", (event) => {
    const input = document.querySelector("input[type=file]");
    input.files = event.clipboardData.files;
    if (input.files.length) input.dispatchEvent(new Event("change"));
})"""


def demo(*, ckpt_path: str, share: bool = False) -> None:
    """Open a page on this machine that classifies photos, until Ctrl-C.

    Args:
        ckpt_path: Checkpoint, or a run folder such as lightning_logs/version_0 for its best
            checkpoint.
        share: Whether to make a public link too, through a server of Gradio's.

    Raises:
        ValueError: The file is not a checkpoint, or a package is missing.
        OSError: A file cannot be read.
    """
    if find_spec("gradio") is None:
        raise ValueError("demo: gradio is missing; install it: pip install -e '.[demo]'")
    import gradio as gr  # noqa: PLC0415 (an optional extra)

    predictor = FlowerPredictor(ckpt_path)
    samples = [[file] for file in example_images(checkpoint_file(ckpt_path))]
    show = partial(results_html, predictor)
    unsure = f"Answers with a probability below {predictor.threshold:.1%} are not sure."
    sources: Any = ["upload", "webcam", "clipboard"]
    # Grad-CAM hooks into the network, which therefore takes one call at a time.
    queue: Any = {"concurrency_id": "network", "concurrency_limit": 1}
    # The JPEG of a camera with 100 megapixels has up to 50 MB.
    options: Any = {"max_file_size": "50mb", "footer_links": [], "quiet": True, "js": _PASTE}
    options["css"] = "#results { --block-padding: 0 }"
    with TemporaryDirectory() as folder:  # of uploaded photos
        os.environ["GRADIO_TEMP_DIR"] = folder
        with gr.Blocks(title="flowers", analytics_enabled=False) as page:
            gr.Markdown(f"# Classify photos\nCheckpoint: `{ckpt_path}`. {unsure}")
            photos = gr.Gallery(label="Photos", sources=sources, file_types=["image"])
            label = f"{len(samples)} test images of the run"
            examples = gr.Dataset(components=["image"], samples=samples, label=label)
            results = gr.HTML(elem_id="results")

            def show_photos(photos: list[tuple[str, str]] | None) -> Any:  # noqa: ANN401
                return show([file for file, _ in photos]) if photos else gr.skip()

            examples.click(show, examples, results, **queue)
            shown = photos.change(show_photos, photos, results, **queue)
            shown.then(lambda: None, outputs=photos)  # clears the gallery for the next upload
        _, *urls = page.launch(
            server_name="127.0.0.1", share=share, prevent_thread_lock=True, **options
        )
        print(f"Open {' or '.join(filter(None, urls))}, end with Ctrl-C", flush=True)
        page.block_thread()


def example_images(checkpoint: Path) -> list[str]:
    """Return up to ten test images of a run; none without its manifest or its photos."""
    manifest = checkpoint.resolve().parent.parent / "manifest.csv"
    root = read_checkpoint(checkpoint)["config"].get("data", {}).get("root")
    try:
        rows = read_manifest(manifest)
    except (OSError, ValueError):
        return []
    paths = [Path(root or ".") / row.path for row in rows if row.split == "test"]
    files = [str(path) for path in paths if path.is_file()]
    return files[:: len(files) // 10 + 1]


def results_html(predictor: FlowerPredictor, files: list[str]) -> str:
    """Return the classification of photos as HTML, with a link to their predictions.csv."""
    names = predictor.class_names
    rows = []
    cards = []
    note = ""
    for file, result in zip(files, predictor.stream(files), strict=True):
        name = Path(file).name
        if isinstance(result, OSError):
            message = str(result).replace(file, name)
            rows.append(evaluation.error_row(name, message, names))
            cards.append(Card("cannot be read", [Picture(b"", message)]))
            continue
        probs = result.probabilities
        values = [*probs.values()]
        rows.append(evaluation.prediction_row(name, values, names, rejected=result.rejected))
        photo = load_thumbnail(file, longest=480)
        pictures = [Picture(_jpeg(photo), name)]
        try:
            overlay = _overlay(predictor, file, photo, names.index(result.label))
            pictures.append(Picture(_jpeg(overlay), "bright: what counts for the class"))
        except ValueError as error:
            note = f"There are no overlays: {error}."
        bars = [Bar(label, prob, f"{prob:.1%}") for label, prob in probs.items()]
        bars.sort(key=lambda bar: bar.fraction, reverse=True)
        title = f"not sure: {result.label}" if result.rejected else result.label
        cards.append(Card(title, pictures, bars))
    table = csv_text(evaluation.header_row(names), rows)
    content = b64encode(table.encode("utf-8", "surrogateescape")).decode()
    title = f"{len(files)} photos"
    if len(files) == 1:
        title = cards[0].title
        cards = [cards[0]._replace(title="")]
    page = escape(evaluation.page_html(title, [Section(note=note, cards=cards)]))
    return _RESULTS.format(csv=content, page=page, width=34 if len(files) == 1 else 74)


def _overlay(predictor: FlowerPredictor, file: str, photo: Image.Image, label: int) -> Image.Image:
    """Return a photo that is dark but for the regions that contribute to a class (Grad-CAM)."""
    images = to_float(load_image(file, **predictor.decoding)[None]).to(predictor.device)
    net = predictor.task.net
    classes = torch.tensor([label], device=predictor.device)
    heat = evaluation.grad_cam(net, net.backbone, images, classes)[0].cpu().numpy()
    mask = Image.fromarray((255 * heat).astype(np.uint8))
    if predictor.decoding["resize"] == "crop":  # the network sees the centre
        mask = ImageOps.pad(mask, photo.size)
    dark = ImageEnhance.Brightness(photo).enhance(0.2)
    return Image.composite(photo, dark, mask.resize(photo.size))


def _jpeg(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return content.getvalue()
