"""The findings in a folder; ``tests/cli/test_audit.py`` tests the command and its page."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image

from flowers.data.quality.audit_folder import KINDS, audit_folder


@pytest.fixture
def root(photos):
    return photos(cat=6, dog=6)


def test_a_folder_without_faults_has_no_findings(root, tmp_path):
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    assert audit.findings == []
    assert audit.quarantine == []
    assert audit.class_counts == {"cat": 6, "dog": 6}
    assert audit.labels["cat/000.png"] == "cat"


def test_findings_are_in_the_order_of_their_kinds(root, tmp_path):
    Image.new("RGB", (4, 4)).save(root / "cat" / "tiny.png")
    (root / "cat" / "broken.jpg").write_bytes(b"no image")
    (root / "dog" / "1.heic").touch()
    shutil.copy(root / "dog" / "000.png", root / "dog" / "copy.png")
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    findings = [(finding.kind, finding.paths) for finding in audit.findings]
    assert findings == [
        ("unreadable", ("cat/broken.jpg",)),
        ("identical", ("dog/000.png", "dog/copy.png")),
        ("tiny", ("cat/tiny.png",)),
        ("ignored", ("dog/1.heic",)),
    ]
    kinds = [finding.kind for finding in audit.findings]
    assert kinds == [kind for kind in KINDS if kind in kinds]


def test_class_names_that_differ_only_in_case_or_spaces_are_a_finding(photos, tmp_path):
    root = photos(rose=2, Rose=2, tulip=2, rosemary=2)
    shutil.copytree(root / "rose", root / "ROSE ")
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    [finding] = [finding for finding in audit.findings if finding.kind == "classes"]
    assert (finding.paths, finding.detail) == ((), "'ROSE ', 'Rose', 'rose'")


def test_odd_files_that_can_be_decoded_are_a_finding_and_not_in_quarantine(root, tmp_path):
    Image.open(root / "cat" / "000.png").save(root / "cat" / "odd.jpg", quality=95)
    whole = (root / "cat" / "odd.jpg").read_bytes()
    (root / "cat" / "odd.jpg").write_bytes(whole[:-2])
    (root / "cat" / "000.png").unlink()
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    [finding] = audit.findings
    assert finding == ("odd", ("cat/odd.jpg",), "its end marker is missing", None)
    assert audit.quarantine == []


def test_the_quarantine_leaves_out_all_but_one_of_identical_files(root, tmp_path):
    shutil.copy(root / "dog" / "000.png", root / "dog" / "copy.png")
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    [row] = audit.quarantine
    assert row.path == "dog/copy.png"
    assert "dog/000.png" in row.reason


def test_the_quarantine_leaves_out_all_images_with_conflicting_labels(root, tmp_path):
    shutil.copy(root / "dog" / "000.png", root / "cat" / "copy.png")
    audit = audit_folder(root, cache_dir=tmp_path / "cache", min_side=8)
    [finding] = audit.findings
    assert finding.kind == "contradiction"
    assert finding.similarity == 1
    assert {row.path for row in audit.quarantine} == {"cat/copy.png", "dog/000.png"}
