"""``python -m flowers demo``: in functions, and in a real browser."""

from __future__ import annotations

import base64
import csv
import html
import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from flowers import FlowerPredictor
from flowers.cli import demo
from flowers.cli.predict import predict
from flowers.data import read_manifest
from flowers.models import ImageClassifier, Standardize


@pytest.fixture
def predictor(trained_run):
    return FlowerPredictor(trained_run, device="cpu")


@pytest.fixture
def roses(synthetic):
    """Return some photos."""
    return [str(file) for file in sorted((synthetic / "roses").iterdir())[:3]]


def read_rows(text: str) -> list[list[str]]:
    return [*csv.reader(text.splitlines())]


def csv_link(page: str) -> str:
    """Return the content of the predictions.csv that a page links."""
    [content] = re.findall(r"data:text/csv;base64,([^\"]+)", page)
    return base64.b64decode(content).decode()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gradio is missing.* pip install -e '\.\[demo\]'"):
        demo.demo(ckpt_path="nowhere")


def test_the_examples_are_test_images_of_the_run(trained_run, tmp_path):
    checkpoint = trained_run / "checkpoints" / "best.ckpt"
    rows = [row for row in read_manifest(trained_run / "manifest.csv") if row.split == "test"]
    examples = demo.example_images(checkpoint)
    assert 5 <= len(examples) <= 10
    assert len({Path(file).parent.name for file in examples}) == 5  # images of each class
    assert {Path(file).name for file in examples} <= {Path(row.path).name for row in rows}
    shutil.copy(checkpoint, tmp_path)
    assert demo.example_images(tmp_path / "best.ckpt") == []


def test_the_table_is_that_of_predict(predictor, trained_run, roses, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    files = [roses[0], str(broken), *roses[1:]]
    predict(files, ckpt_path=str(trained_run), accelerator="cpu")
    expected = read_rows(Path("predictions.csv").read_text())
    page = demo.results_html(predictor, files)
    rows = read_rows(csv_link(page))
    assert rows[0] == expected[0]
    for row, other in zip(rows[1:], expected[1:], strict=True):
        name = Path(other[0]).name
        assert row == [cell.replace(other[0], name) for cell in other]
    assert str(tmp_path) not in html.unescape(page)
    assert rows[2][4] in html.unescape(html.unescape(page))


def test_a_decompression_bomb_is_refused(predictor, tmp_path):
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 2**20
    [_, row] = read_rows(csv_link(demo.results_html(predictor, [str(bomb)])))
    assert "decompression bomb" in row[4]


def test_answers_below_the_threshold_are_not_sure(predictor, roses):
    predictor.threshold = 0.0
    assert "not sure: " not in demo.results_html(predictor, roses)
    predictor.threshold = 1.1
    assert demo.results_html(predictor, roses).count("not sure: ") == len(roses)


def test_a_file_name_runs_no_script(predictor, roses, tmp_path):
    photo = tmp_path / "<img src=x onerror=alert(1)>.png"
    shutil.copy(roses[0], photo)
    assert "<img src=x" not in html.unescape(demo.results_html(predictor, [str(photo)]))


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_the_photo_is_bright_where_the_network_looked(predictor, resize, tmp_path):
    """Of a wide photo, a network with ``crop`` sees the centre only."""
    predictor.decoding["resize"] = resize
    head = nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 10, len(predictor.class_names)))
    nn.init.ones_(head[1].weight)  # all regions contribute
    predictor.task.net = ImageClassifier(Standardize(), nn.AvgPool2d(4), head)
    Image.new("RGB", (160, 40), "white").save(tmp_path / "wide.png")
    page = html.unescape(demo.results_html(predictor, [str(tmp_path / "wide.png")]))
    contents = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    photo, overlay = (Image.open(io.BytesIO(base64.b64decode(content))) for content in contents)
    assert photo.size == overlay.size == (160, 40)
    is_bright = np.asarray(overlay)[:, :, 1] > 180
    assert is_bright[:, 65:95].all()
    assert is_bright[:, :55].any() == is_bright[:, 105:].any() == (resize == "stretch")


def test_a_network_without_feature_maps_has_no_overlay(predictor, roses):
    backbone = nn.Sequential(nn.Flatten())
    side = predictor.decoding["image_size"]
    head = nn.Linear(3 * side * side, len(predictor.class_names))
    predictor.task.net = ImageClassifier(Standardize(), backbone, head)
    page = html.unescape(demo.results_html(predictor, roses))
    assert page.count("data:image/jpeg") == len(roses)
    assert "There are no overlays: Grad-CAM needs a feature map" in page


@pytest.fixture(scope="module")
def url(trained_run):
    """Start the command, and return the address that it prints."""
    pytest.importorskip("gradio", reason="the extra `demo` is not installed")
    command = [sys.executable, "-m", "flowers", "demo", "--ckpt_path", str(trained_run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        [url] = re.findall(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        yield url
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """Return a function that opens the page for another person."""
    contexts = []

    def open_page(*, width: int = 1280):
        context = browser.new_context(viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()


def upload(page, *files: str) -> None:
    page.locator("input[type=file]").first.set_input_files(list(files))


def cards(page):
    return page.frame_locator("iframe").locator(".card")


@pytest.mark.slow
def test_a_photo_is_classified_as_by_the_predictor(open_page, predictor, roses):
    page = open_page()
    upload(page, roses[0])
    text = cards(page).inner_text()
    answer = predictor(roses[0])
    title = page.frame_locator("iframe").locator("h1").inner_text()
    assert title == "not sure: " * answer.rejected + answer.label
    for name, prob in answer.probabilities.items():
        assert f"{name}\n{prob:.1%}" in text
    photo, overlay = cards(page).locator("img").all()
    left, right = photo.bounding_box(), overlay.bounding_box()
    assert left["x"] + left["width"] <= right["x"]
    assert (left["y"], left["width"]) == pytest.approx((right["y"], right["width"]), abs=1)
    # The next photo replaces the answer.
    upload(page, roses[1])
    cards(page).get_by_text(Path(roses[1]).name).wait_for()
    assert cards(page).count() == 1


@pytest.mark.slow
def test_text_with_the_name_of_a_photo_gets_the_message_of_predict(open_page, predictor):
    Path("text.jpg").write_text("no image")
    page = open_page()
    upload(page, "text.jpg")
    [error] = predictor.stream(["text.jpg"])
    assert cards(page).inner_text().strip() == str(error)
    assert page.frame_locator("iframe").locator("h1").inner_text() == "cannot be read"


@pytest.mark.slow
def test_a_large_file_is_refused_before_it_is_read(open_page):
    with Path("large.jpg").open("wb") as file:
        file.truncate(200 * 2**20)
    page = open_page()
    upload(page, "large.jpg")
    page.get_by_text("exceed the maximum allowed size").first.wait_for()
    assert page.locator("iframe").count() == 0


@pytest.mark.slow
def test_a_phone_needs_no_horizontal_scrolling(open_page, roses):
    page = open_page(width=390)
    for files in ([], roses[:1], roses):
        if files:
            upload(page, *files)
            cards(page).nth(len(files) - 1).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    inside = "document.querySelector('iframe').contentDocument.documentElement"
    assert page.evaluate(f"{inside}.scrollWidth <= {inside}.clientWidth")
    assert page.evaluate(f"{inside}.scrollHeight <= {inside}.clientHeight + 1")


@pytest.mark.slow
def test_two_people_are_served_at_once(open_page, predictor, synthetic):
    pages = [open_page(), open_page()]
    photos = [[*map(str, sorted((synthetic / name).iterdir())[:10])] for name in ("daisy", "roses")]
    for page, files in zip(pages, photos, strict=True):
        upload(page, *files)
    for page, files in zip(pages, photos, strict=True):
        cards(page).nth(9).wait_for()
        with page.expect_download() as download:
            page.get_by_text("Download CSV").click()
        assert download.value.suggested_filename == "predictions.csv"
        rows = read_rows(Path(download.value.path()).read_text())[1:]
        assert [row[0] for row in rows] == [Path(file).name for file in files]
        assert [row[2] for row in rows] == [answer.label for answer in predictor(files)]


@pytest.mark.slow
def test_a_test_image_is_classified_on_a_click(open_page, trained_run):
    page = open_page()
    page.get_by_text("Test images").wait_for()
    page.locator(".gallery-item").last.click()
    example = demo.example_images(trained_run / "checkpoints" / "best.ckpt")[-1]
    cards(page).get_by_text(Path(example).name).wait_for()


@pytest.mark.slow
def test_a_photo_is_pasted(open_page):
    page = open_page()
    page.locator("input[type=file]").first.wait_for(state="attached")
    page.get_by_text("Test images").wait_for()
    page.evaluate(
        """async () => {
        const blob = await (await fetch(document.querySelector(".gallery-item img").src)).blob();
        const data = new DataTransfer();
        data.items.add(new File([blob], "pasted.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
    }"""
    )
    cards(page).get_by_text("pasted.png").wait_for()
