"""``python -m flowers demo``: a page on this machine that classifies photos."""

import os
from base64 import b64encode
from html import escape
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowers import evaluation
from flowers.checkpoint import checkpoint_file, read_checkpoint
from flowers.csv_files import csv_text
from flowers.data import load_image, load_thumbnail, read_manifest, to_float
from flowers.deploy import FlowerPredictor

# The page in the frame is up to 72rem wide and has a padding of 1rem. The frame is 1rem wider on
# each side, so that the page's contents align with the rest of the demo.
_RESULTS = """<a download="predictions.csv" href="data:text/csv;base64,{csv}">Download CSV</a>
<iframe title="Results" srcdoc="{page}"
 style="width: min(100% + 2rem, 74rem); margin-left: -1rem; color-scheme: light dark"
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
        share: Whether to also make a public link, through a server of Gradio's.

    Raises:
        ValueError: The file is not a checkpoint, or the package gradio is missing.
        OSError: A file cannot be read.
    """
    if find_spec("gradio") is None:
        raise ValueError("demo: gradio is missing; install it: pip install -e '.[demo]'")
    import gradio as gr  # noqa: PLC0415 (an optional extra)

    predictor = FlowerPredictor(ckpt_path)
    samples = [[file] for file in example_images(checkpoint_file(ckpt_path))]
    unsure = f'Answers with a probability below {predictor.threshold:.1%} are marked "not sure".'
    # JPEGs of a camera with 100 megapixels have up to 50 MB.
    options: Any = {"max_file_size": "50mb", "footer_links": [], "quiet": True, "js": _PASTE}
    options |= {"server_name": "127.0.0.1", "css": "#results { --block-padding: 0 }"}
    with TemporaryDirectory() as folder:  # for uploaded photos
        os.environ["GRADIO_TEMP_DIR"] = folder
        with gr.Blocks(title="flowers", analytics_enabled=False) as app:
            gr.Markdown(f"# Classify photos\nCheckpoint: `{ckpt_path}`. {unsure}")
            sources: Any = ["upload", "webcam", "clipboard"]
            photos = gr.Gallery(label="Photos", sources=sources, file_types=["image"])
            examples = gr.Dataset(components=["image"], samples=samples, label="Test images")
            results = gr.HTML(elem_id="results")

            # An item is a file (example), or a file and its caption (upload).
            def show(items: list[Any] | None) -> Any:  # noqa: ANN401
                files = [item if isinstance(item, str) else item[0] for item in items or []]
                return results_html(predictor, files) if files else gr.skip()

            examples.click(show, examples, results)
            photos.change(show, photos, results).then(lambda: None, outputs=photos)
        app.queue(default_concurrency_limit=1)  # Grad-CAM needs one call at a time
        _, *urls = app.launch(share=share, prevent_thread_lock=True, **options)
        print(f"Open {' or '.join(filter(None, urls))}, end with Ctrl-C", flush=True)
        app.block_thread()


def example_images(checkpoint: Path) -> list[str]:
    """Return up to ten test images of a run; empty if its manifest or its photos are missing."""
    root = Path(read_checkpoint(checkpoint)["config"].get("data", {}).get("root") or ".")
    try:
        rows = read_manifest(checkpoint.resolve().parent.parent / "manifest.csv")
    except (OSError, ValueError):
        return []
    paths = [root / row.path for row in rows if row.split == "test"]
    files = [str(path) for path in paths if path.is_file()]
    return files[:: len(files) // 10 + 1]


def results_html(predictor: FlowerPredictor, files: list[str]) -> str:
    """Return the classification of photos as HTML, with a link that downloads predictions.csv."""
    names = predictor.class_names
    rows = []
    cards = []
    note = ""
    for file, result in zip(files, predictor.stream(files), strict=True):
        name = Path(file).name
        if isinstance(result, OSError):
            message = str(result).replace(file, name)
            rows.append(evaluation.error_row(name, message, names))
            cards.append(evaluation.Card("cannot be read", [evaluation.Picture(b"", message)]))
            continue
        probs = [*result.probabilities.values()]
        rows.append(evaluation.prediction_row(name, probs, names, rejected=result.rejected))
        photo = evaluation.Picture(evaluation.jpeg_bytes(load_thumbnail(file, longest=480)), name)
        images = to_float(load_image(file, **predictor.decoding)[None]).to(predictor.device)
        label = names.index(result.label)
        [overlaid], note = evaluation.add_overlays(
            [photo], predictor.task.net, images, [label], resize=predictor.decoding["resize"]
        )
        pictures = [photo]
        if overlaid.overlay:
            pictures.append(evaluation.Picture(overlaid.overlay, "Grad-CAM"))
        title = f"not sure: {result.label}" if result.rejected else result.label
        cards.append(evaluation.Card(title, pictures, evaluation.class_bars(names, probs)[:10]))
    table = csv_text(evaluation.header_row(names), rows)
    content = b64encode(table.encode("utf-8", "surrogateescape")).decode()
    title = f"{len(files)} photos"
    if len(files) == 1:
        title = cards[0].title
        cards = [cards[0]._replace(title="")]
    page = escape(evaluation.page_html(title, [evaluation.Section(note=note, cards=cards)]))
    return _RESULTS.format(csv=content, page=page)
