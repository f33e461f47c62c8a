"""``python -m flowers audit``."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import os
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowers import data, runtime
from flowers.__main__ import main, run_function
from flowers.cli import audit
from flowers.data import FlowersDataModule, generate_flowers
from flowers.evaluation import LabelIssue

SCRIPT = "a<script>alert(1)<&'.jpg"
QUOTES = "pâquerette \"quoted\" 'name'.png"


def run(root: Path, *options: str, out: str = "out") -> tuple[int, dict, str, list[dict]]:
    """Return status, JSON, page and quarantine list."""
    status = run_function(audit.audit, [str(root), "--out", out, *options])
    out = Path(out)
    with (out / "quarantine.csv").open(newline="", errors="surrogateescape") as file:
        return (
            status,
            json.loads((out / "audit.json").read_text()),
            (out / "audit.html").read_text(),
            [*csv.DictReader(file)],
        )


def bomb() -> bytes:
    """Return a PNG of a few hundred bytes whose header says 50,000 x 50,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def noise(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(
        0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8
    )
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Return a folder with a file for each kind of fault, and 40 images without one."""
    root = tmp_path / "photos"
    cat = root / "cat"
    dog = root / "dog"
    for label, folder in enumerate((cat, dog)):
        folder.mkdir(parents=True)
        for number in range(20):
            noise(100 * label + number).save(folder / f"{number:02d}.png")
    noise(1000).save(cat / "truncated.jpg")
    (cat / "truncated.jpg").write_bytes((cat / "truncated.jpg").read_bytes()[:-300])
    (cat / "text.jpg").write_text("no image")
    (cat / "empty.jpg").touch()
    (cat / "bomb.png").write_bytes(bomb())
    (cat / "secret.png").write_bytes(b"not for you")
    read_bytes = Path.read_bytes

    def guarded(self: Path) -> bytes:  # for root, who may run the tests, chmod has no effect
        if self.name == "secret.png":
            raise PermissionError(13, "Permission denied", str(self))
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", guarded)
    noise(1001).convert("CMYK").save(dog / "cmyk.jpg")
    Image.fromarray((np.random.default_rng(7).random((40, 40)) * 65535).astype(np.uint16)).save(
        dog / "deep.png"
    )
    frames = [noise(1002 + number) for number in range(3)]
    noise(1005).save(dog / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(dog / "moves.webp", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(1010).save(dog / "lying.jpg", exif=exif)
    noise(1011).save(dog / "really.png", "JPEG")
    noise(1012, (24, 16)).save(dog / "tiny.png")
    (dog / "loop").symlink_to("..")
    noise(1013).save(cat / SCRIPT)
    noise(1013).save(cat / "copy.jpg")
    noise(1014).save(cat / QUOTES)
    noise(1014).save(dog / "same.png")
    noise(1014).resize((128, 96), Image.Resampling.BICUBIC).save(dog / "larger.png")
    noise(1015).save(cat / "\udcff.jpg")  # a name that is not UTF-8
    return root


def test_every_fault_is_a_finding_and_does_not_end_the_audit(hostile):
    status, result, _, _ = run(hostile)
    assert status == 1
    paths_of_kind = {}
    for finding in result["findings"]:
        paths_of_kind.setdefault(finding["kind"], []).append(tuple(finding["paths"]))
    same = f"cat/{QUOTES}"
    assert {kind: sorted(paths) for kind, paths in paths_of_kind.items()} == {
        "unreadable": [
            (f"cat/{name}",)
            for name in ("bomb.png", "empty.jpg", "secret.png", "text.jpg", "truncated.jpg")
        ],
        "contradiction": [(same, "dog/larger.png"), (same, "dog/same.png")],
        "identical": [(f"cat/{SCRIPT}", "cat/copy.jpg")],
        "tiny": [("dog/tiny.png",)],
        "ignored": [("dog/loop",)],
        "format": [("dog/really.png",)],
        "mode": [("dog/cmyk.jpg",), ("dog/deep.png",)],
        "rotated": [("dog/lying.jpg",)],
        "animated": [("dog/moves.gif",), ("dog/moves.webp",)],
    }
    details = {
        path: finding["detail"] for finding in result["findings"] for path in finding["paths"]
    }
    assert "bomb" in details["cat/bomb.png"]
    assert "Permission denied" in details["cat/secret.png"]
    assert "truncated" in details["cat/truncated.jpg"]


def test_the_page_needs_no_other_file_and_escapes_file_names(hostile):
    (hostile / "LICENSE.txt").write_text(
        "dog/same.png CC-BY by <b>Bo & Co</b> - https://example.org/1\n"
    )
    _, _, page, _ = run(hostile)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page  # a browser executes no other
    assert page.count("<script") == 1
    assert "<b>Bo" not in page
    assert "a&lt;script&gt;alert(1)&lt;&amp;&#39;.jpg" in page
    assert "photo: &lt;b&gt;Bo &amp; Co&lt;/b&gt;" in page
    assert not re.search(r'(src|href)=(?!"data:image/jpeg;base64,|"#|"file:///)', page)
    assert (
        page.count("<img") == 3 * 2 + 7
    )  # three pairs; tiny, format, two modes, rotated, two animated


def test_the_ticked_images_of_the_page_are_those_of_the_quarantine_list(hostile):
    _, _, page, _ = run(hostile)
    header = html.unescape(re.search(r'data-header="([^"]*)"', page)[1])
    ticked = re.findall(r'<input type="checkbox" value="([^"]*)" checked', page)
    lines = {html.unescape(line) for line in ticked}
    [expected_header, *expected] = Path("out/quarantine.csv").read_text().splitlines(keepends=True)
    assert header == expected_header
    assert lines == set(expected)
    assert '<input type="checkbox" value="dog/tiny.png,,tiny\n">' in page


def test_the_quarantine_list_is_accepted_by_the_data_module(hostile):
    _, _, _, rows = run(hostile)
    paths = {row["path"] for row in rows}
    assert paths == {
        *(
            f"cat/{name}"
            for name in ("bomb.png", "empty.jpg", "secret.png", "text.jpg", "truncated.jpg")
        ),
        *(f"cat/{QUOTES}", "dog/larger.png", "dog/same.png", "cat/copy.jpg"),
    }
    data = FlowersDataModule(
        str(hostile), image_size=16, crop_size=16, quarantine="out/quarantine.csv"
    )
    data.setup("fit")
    assert {row.path for row in data.manifest_rows() if row.split == "quarantined"} == paths


def test_a_folder_without_faults_has_no_findings(tmp_path, capsys):
    generate_flowers(tmp_path / "synthetic_flowers", per_class=6, image_size=48)
    status, result, page, rows = run(tmp_path / "synthetic_flowers")
    assert (status, result["findings"], rows) == (0, [], [])
    assert "No findings" in page
    printed = capsys.readouterr().out
    assert "no findings" in printed
    assert "tatus" not in printed


def test_a_single_image_to_leave_out_and_the_status_are_printed(photos, capsys):
    root = photos(cat=4, dog=4)
    shutil.copy(root / "cat" / "000.png", root / "cat" / "copy.png")
    status, _, page, _ = run(root, "--min_side", "8")
    assert status == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("To leave out 1 of the images, give --data.quarantine ")
    assert lines[-1] == "The exit status is 1, because there are findings"
    assert "Findings: 1." in page
    assert "ticked below: 1." in page


def test_faults_that_stop_a_training_are_findings(photos, monkeypatch, tmp_path):
    root = photos(cat=3, dog=3)
    (root / "emu").mkdir()
    with (root / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(2**31)
    (root / "cat" / "locked").mkdir()
    scandir = os.scandir

    def guarded(folder):
        if Path(str(folder)).name == "locked":  # rmtree gives a file descriptor
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    status, result, _, _ = run(root, "--min_side", "8")
    assert status == 1
    files = {
        finding["kind"]: (*finding["paths"], finding["detail"]) for finding in result["findings"]
    }
    assert files["empty"] == ("emu: no image",)
    assert files["ignored"][0] == "cat/locked"
    assert "Permission denied" in files["ignored"][1]
    assert files["unreadable"] == ("cat/huge.jpg", "expected a photo, got a file of 2.0 GiB")
    with pytest.raises(PermissionError, match="locked"):
        FlowersDataModule(str(root))


def test_a_divided_folder_is_audited_by_class_and_its_leaks_are_reported(tmp_path, capsys):
    generate_flowers(tmp_path / "synthetic_flowers", per_class=6, image_size=48)
    root = tmp_path / "photos"
    for file in (tmp_path / "synthetic_flowers").glob("*/*.jpg"):
        folder = root / ("train", "val", "test")[int(file.stem) % 3] / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.name)
    status, result, _, rows = run(root)
    assert (status, result["findings"], rows) == (0, [], [])
    assert set(result["class_counts"].values()) == {6}
    [tested, *_] = (root / "test" / "roses").iterdir()
    shutil.copy(tested, root / "train" / "roses" / "leak.jpg")
    [validated, *_] = (root / "val" / "tulips").iterdir()
    Image.open(validated).resize((60, 60)).save(root / "train" / "tulips" / "leak.jpg")
    (root / "test" / "emu").mkdir()
    noise(1).save(root / "test" / "emu" / "1.png")
    status, result, page, rows = run(root, out="again")
    assert status == 1
    leaks = [finding["paths"] for finding in result["findings"] if finding["kind"] == "leak"]
    assert sorted(leaks) == [
        [f"test/roses/{tested.name}", "train/roses/leak.jpg"],
        [f"val/tulips/{validated.name}", "train/tulips/leak.jpg"],
    ]
    assert {"train/roses/leak.jpg", "train/tulips/leak.jpg"} <= {row["path"] for row in rows}
    assert f"val/tulips/{validated.name}" not in {row["path"] for row in rows}
    [empty] = [finding["detail"] for finding in result["findings"] if finding["kind"] == "empty"]
    assert empty == "emu: no image in the training split"
    assert "Duplicates in two splits" in page
    assert "duplicates in two splits: " in capsys.readouterr().out


def test_ignored_files_are_counted_by_ending_in_one_line(photos, capsys):
    root = photos(cat=3, dog=3)
    for name in ("LICENSE.txt", "cat/1.heic", "cat/2.heic", "dog/3.JPG_large"):
        (root / name).touch()
    _, result, page, _ = run(root, "--min_side", "8")
    paths = [finding["paths"] for finding in result["findings"] if finding["kind"] == "ignored"]
    assert paths == [["cat/1.heic"], ["cat/2.heic"], ["dog/3.JPG_large"]]
    [line] = [line for line in capsys.readouterr().out.splitlines() if "ignored files" in line]
    assert re.match(
        r" +3  ignored files: name does not end in .*\(\.heic 2, \.JPG_large 1\).*pillow-heif", line
    )
    assert "pillow-heif" in page


def test_near_duplicates_are_ignored_where_only_exact_ones_are_requested(hostile):
    _, result, _, _ = run(hostile, "--duplicates", "exact")
    pairs = [
        finding["paths"] for finding in result["findings"] if finding["similarity"] is not None
    ]
    assert sorted(pairs) == [[f"cat/{SCRIPT}", "cat/copy.jpg"], [f"cat/{QUOTES}", "dog/same.png"]]


def test_the_json_has_quarantine_credits_and_similarities(hostile):
    (hostile / "LICENSE.txt").write_text("dog/same.png CC-BY by Bo - https://example.org/1\n")
    _, result, _, rows = run(hostile)
    assert result["quarantine"] == rows
    assert result["credits"] == {
        "dog/same.png": {"photographer": "Bo", "url": "https://example.org/1"}
    }
    assert all(
        0.75 <= finding["similarity"] <= 1
        for finding in result["findings"]
        if len(finding["paths"]) == 2
    )


def test_a_file_name_that_is_not_utf8_is_printed(photos, monkeypatch):
    root = photos(cat=3, dog=3)
    (root / "cat" / "\udcff.gif").touch()
    (root / "dog" / "escape\x1b[2J.png").touch()
    # It would set the number of threads for the following tests, too.
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8", errors="strict"))
    assert main(["audit", str(root), "--out", "out"]) == 1
    sys.stdout.flush()
    assert b"cat/\\udcff.gif" in written.getvalue()
    assert rb"dog/escape\x1b[2J.png" in written.getvalue()


def test_unequal_classes_are_a_finding(photos):
    status, result, _, _ = run(photos(cat=40, dog=10, emu=11), "--min_side", "24")
    assert status == 1
    assert result["class_counts"] == {"cat": 40, "dog": 10, "emu": 11}
    [finding] = result["findings"]
    assert (finding["kind"], finding["detail"]) == (
        "imbalance",
        "cat has 40 images, dog has 10: 4.0 times as many",
    )


def test_label_issues_of_a_cross_validation_are_on_the_page(photos):
    root = photos(cat=4, dog=4)
    rows = ["path,label,predicted,rejected,error,cat,dog"]
    for name, other, probs in (("cat", "dog", (0.9, 0.1)), ("dog", "cat", (0.1, 0.9))):
        for number in range(4):
            cat, dog = probs if number else probs[::-1]
            rows.append(f"{name}/{number:03d}.png,{name},{name if number else other},,,{cat},{dog}")
    Path("predictions.csv").write_text("\n".join(rows))
    status, result, page, _ = run(root, "--predictions", "predictions.csv")
    assert status == 1
    assert result["label_issues"] == [
        LabelIssue("cat/000.png", "cat", "dog", 0.1, 0.9)._asdict(),
        LabelIssue("dog/000.png", "dog", "cat", 0.1, 0.9)._asdict(),
    ]
    assert "labelled cat (10%), predicted dog (90%)" in page


def test_predictions_of_missing_files_are_left_out(photos, capsys, tmp_path):
    root = photos(cat=4, dog=4)
    rows = [f"cat/{number:03d}.png,cat,cat,,,0.9,0.1" for number in range(4)]
    rows += [f"dog/{number:03d}.png,dog,dog,,,0.1,0.9" for number in range(1, 4)]
    rows += ["cat/gone.png,cat,dog,,,0.1,0.9", "dog/000.png,cat,dog,,,0.1,0.9"]
    Path("predictions.csv").write_text(
        "\n".join(["path,label,predicted,rejected,error,cat,dog", *rows])
    )
    _, result, page, _ = run(root, "--predictions", "predictions.csv")
    assert result["label_issues"] == []
    assert "gone.png" not in page
    assert "an image is missing or has another label now: 2" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="nowhere"):
        audit.audit(str(root), predictions="nowhere.csv")


def test_predictions_of_predict_get_their_labels_from_the_folder(photos, tmp_path):
    root = photos(cat=4, dog=4)
    rows = ["path,label,predicted,rejected,error,cat,dog"]
    for name, other in (("cat", "dog"), ("dog", "cat")):
        for number in range(4):
            predicted = name if number else other
            probs = "0.9,0.1" if predicted == "cat" else "0.1,0.9"
            path = f"{os.path.relpath(root, tmp_path)}/{name}/{number:03d}.png"
            rows.append(f"{path},,{predicted},False,,{probs}")
    rows.append("broken.png,,,,no image,,")
    Path("predictions.csv").write_text("\n".join(rows))
    _, result, _, _ = run(root, "--predictions", "predictions.csv")
    assert [issue["path"] for issue in result["label_issues"]] == ["cat/000.png", "dog/000.png"]


@pytest.mark.parametrize(("megapixels", "num_refused"), [("1", 1), ("3", 0)])
def test_photos_larger_than_the_limit_are_reported(photos, monkeypatch, megapixels, num_refused):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # to restore it
    root = photos(cat=3, dog=3)
    Image.new("L", (1100, 950)).save(root / "cat" / "large.png")
    _, facts, _, _ = run(root, "--min_side", "8", "--max_megapixels", megapixels)
    refused = [finding for finding in facts["findings"] if finding["kind"] == "unreadable"]
    assert len(refused) == num_refused
    assert all("`max_megapixels`" in finding["detail"] for finding in refused)


@pytest.mark.parametrize("option", ["--out", "--cache_dir"])
def test_nothing_is_written_among_the_photos(photos, option):
    root = photos(cat=3, dog=3)
    with pytest.raises(ValueError, match=f"{option} .*: expected a folder outside "):
        run_function(audit.audit, [str(root), option, str(root / "new")])
    assert {path.name for path in root.iterdir()} == {"cat", "dog"}


def test_an_audit_inside_the_photos_names_another_folder(photos, monkeypatch):
    root = photos(cat=3, dog=3)
    (root / "lightning_logs" / "version_0").mkdir(parents=True)  # of a training there
    monkeypatch.chdir(root)
    with pytest.raises(ValueError, match=r"--out lightning_logs: .* as --out (\S+)$") as raised:
        audit.audit(".")
    place = str(raised.value).rpartition(" ")[2]
    assert run(Path(), "--min_side", "8", out=place)[1]["class_counts"] == {"cat": 3, "dog": 3}


def test_results_are_never_overwritten(photos, tmp_path):
    root = photos(cat=3, dog=3)
    for number in range(2):
        audit.audit(str(root))
        assert (tmp_path / "lightning_logs" / f"audit_{number}" / "audit.html").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="--out mine"):
        audit.audit(str(root), out=Path("mine"))


def test_a_folder_made_during_the_audit_is_not_overwritten(photos, tmp_path, monkeypatch, capsys):
    root = photos(cat=3, dog=3)
    audit_folder = data.audit_folder

    def audited(*args, **options):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "quarantine.csv").write_text("mine")
        return audit_folder(*args, **options)

    monkeypatch.setattr(data, "audit_folder", audited)
    audit.audit(str(root), out=Path("out"))
    assert [(file.name, file.read_text()) for file in (tmp_path / "out").iterdir()] == [
        ("quarantine.csv", "mine")
    ]
    assert (tmp_path / "out-2" / "audit.html").is_file()
    assert "See out-2/audit.html" in capsys.readouterr().out


def test_an_audit_that_cannot_run_has_another_status_than_one_with_findings(
    photos, capsys, monkeypatch
):
    # It would set the number of threads for the following tests, too.
    monkeypatch.setattr(runtime, "prepare", lambda: None)
    assert main(["audit", "nowhere"]) == 2
    assert "flowers: root nowhere: expected a folder" in capsys.readouterr().err
    root = photos(cat=3, dog=3)
    shutil.rmtree(root / "dog")
    assert main(["audit", str(root)]) == 2
    monkeypatch.setattr(data, "audit_folder", None)
    assert main(["audit", str(root)]) == 2  # a bug is no finding
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        main(["audit"])
    assert raised.value.code == 2
