from __future__ import annotations

import numpy as np
import pytest

from flowers.data import manifest_text, read_manifest
from flowers.data.splitting.manifest import ManifestRow, fingerprints, split_of_manifest

ROWS = [
    ManifestRow("cat/a, \"quoted\" 'name'.jpg", "cat", "1" * 64, "train"),
    ManifestRow("cat/pâquerette.jpg", "cat", "2" * 64, "val"),
    ManifestRow("dog/\udcff.jpg", "dog", "3" * 64, "test"),  # a name that is not UTF-8
    ManifestRow("dog/bad.jpg", "dog", "4" * 64, "skipped"),
    ManifestRow("dog/mislabelled.jpg", "dog", "6" * 64, "quarantined"),
    ManifestRow("=1+1/-2.jpg", "=1+1", "7" * 64, "skipped"),  # a formula for a spreadsheet
]
FILES = {row.path: (row.label, row.sha256) for row in ROWS}


def write(folder, rows):
    file = folder / "manifest.csv"
    file.write_bytes(manifest_text(rows).encode("utf-8", "surrogateescape"))
    return file


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    assert read_manifest(write(tmp_path, ROWS)) == ROWS
    assert "\n'=1+1/-2.jpg,'=1+1," in manifest_text(ROWS)


def test_a_manifest_saved_by_a_spreadsheet_program_is_read(tmp_path):
    file = tmp_path / "manifest.csv"
    text = manifest_text(ROWS[3:]).replace(",", ";")
    file.write_text(text, encoding="utf-8-sig")
    assert read_manifest(file) == ROWS[3:]


def test_the_split_of_a_manifest_is_the_one_it_states(tmp_path):
    file = write(tmp_path, ROWS)
    files = FILES | {"dog/new.jpg": ("dog", "5" * 64)}
    assert split_of_manifest(file, files=files) == {row.path: row.split for row in ROWS[:3]}


@pytest.mark.parametrize(
    "change",
    [{ROWS[1].path: ("cat", "9" * 64)}, {ROWS[1].path: ("dog", "2" * 64)}, {ROWS[1].path: None}],
    ids=["other content", "other label", "missing"],
)
def test_a_file_that_is_not_as_in_the_manifest_is_named(change, tmp_path):
    file = write(tmp_path, ROWS)
    files = {path: info for path, info in (FILES | change).items() if info is not None}
    with pytest.raises(ValueError, match=r"1 of its 3 images .*cat/pâquerette\.jpg"):
        split_of_manifest(file, files=files)


@pytest.mark.parametrize(
    "text",
    ["", "path,label\na,b\n", "path,label,sha256,split\na,b,c\n", "path,label,sha256,split\n"],
)
def test_another_csv_is_refused(tmp_path, text):
    file = tmp_path / "manifest.csv"
    file.write_text(text)
    with pytest.raises(
        ValueError, match=r"`manifest` .*expected the columns path, label, sha256, split"
    ):
        read_manifest(file)


def test_a_path_listed_twice_is_refused(tmp_path):
    rows = [*ROWS, ROWS[0]._replace(split="test")]
    with pytest.raises(ValueError, match="1 paths are repeated"):
        read_manifest(write(tmp_path, rows))


def test_an_unknown_split_is_refused(tmp_path):
    file = tmp_path / "manifest.csv"
    file.write_text("path,label,sha256,split\na,b,c,dev\n")
    with pytest.raises(ValueError, match="got dev"):
        read_manifest(file)


def test_fingerprints_depend_on_contents_labels_and_splits_but_not_on_names():
    base = fingerprints(ROWS)
    renamed = [row._replace(path=f"x/{number}") for number, row in enumerate(ROWS)]
    assert fingerprints(renamed[::-1]) == base
    moved = fingerprints([ROWS[0]._replace(split="test"), *ROWS[1:]])
    assert moved["data_fingerprint"] == base["data_fingerprint"]
    assert moved["split_fingerprint"] != base["split_fingerprint"]
    relabelled = fingerprints([ROWS[0]._replace(label="dog"), *ROWS[1:]])
    assert np.all([relabelled[key] != base[key] for key in base])
