"""``python -m flowers audit``: check the images and labels of a folder."""

from __future__ import annotations

import json
import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowers.cli.photo_picture import photo_picture
from flowers.data import (
    KINDS,
    Audit,
    DuplicateRule,
    Finding,
    IgnoredFile,
    QuarantineRow,
    allow_megapixels,
    audit_folder,
    default_cache_dir,
    ensure_root,
    quarantine_text,
    read_credits,
    reasons_to_ignore,
)
from flowers.evaluation import (
    Bar,
    Card,
    Download,
    LabelIssue,
    Picture,
    PredictionTable,
    Section,
    Table,
    label_issues,
    page_html,
    read_predictions,
)
from flowers.printable import printable
from flowers.run_folder import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

# Findings of each kind on the page; the JSON has all.
_MAX_FINDINGS = 200


def audit(
    root: str,
    *,
    out: str | None = None,
    predictions: str | None = None,
    duplicates: DuplicateRule = "near",
    min_side: int = 32,
    max_megapixels: int | None = None,
    cache_dir: str | None = None,
) -> int:
    """Find broken files, duplicates, conflicting labels and other faults of a data set.

    Writes audit.html, audit.json and quarantine.csv (for --data.quarantine). The exit status is 0
    if there are no findings, 1 if there are some, 2 if the audit failed.

    Args:
        root: Folder root/<class>/<image> or root/{train,val,test}/<class>/<image>.
        out: New folder for the results; by default the next free lightning_logs/audit_<n>.
        predictions: The predictions.csv of cross_validate, to find label issues too.
        duplicates: Which images count as duplicates; use exact if different images look alike.
        min_side: Images with a shorter side are reported as tiny, in pixels.
        max_megapixels: Largest image that is decoded, in megapixels; by default 179.
        cache_dir: Folder of the cache; by default flowers in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        FileExistsError: The folder for the results exists.
        ValueError: A folder to write into is inside the folder of photos, or an input is invalid.
        OSError: A folder or file cannot be read or written.
    """
    allow_megapixels(max_megapixels)
    cache = Path(cache_dir) if cache_dir else default_cache_dir()
    folder = ensure_root(root)
    for option, path in {"--out": Path(out or "lightning_logs"), "--cache_dir": cache}.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{option} {path}: expected a folder outside {root}, which holds only photos. Give "
                f"another, such as {option} {folder.resolve()}-{option.removeprefix('--')}"
            )
    if out is not None and Path(out).exists():
        raise FileExistsError(f"--out {out}: the folder exists. Give another name.")
    table = None
    if predictions is not None:
        table = read_predictions(predictions, needs_labels=False)
    audited = audit_folder(folder, cache_dir=cache, duplicates=duplicates, min_side=min_side)
    issues: list[LabelIssue] = []
    if table is not None:
        issues = label_issues(_of_this_folder(table, audited, file=str(predictions)))
    groups = _grouped(audited, issues)
    texts = {
        "audit.html": _page(audited, groups),
        "audit.json": _json(audited, issues),
        "quarantine.csv": quarantine_text(audited.quarantine),
    }
    target = write_folder(None if out is None else Path(out), texts, name="audit")
    print(_summary(audited, groups, folder=Path(os.path.relpath(target))))
    return 1 if groups else 0


def _of_this_folder(predictions: PredictionTable, audited: Audit, *, file: str) -> PredictionTable:
    """Return the predictions of images that still have that label; print their number."""
    names = predictions.class_names
    rows = []
    paths = []
    labels = []
    for row, (path, label) in enumerate(zip(predictions.paths, predictions.labels, strict=True)):
        inside = path
        if path not in audited.labels:  # predict writes paths as they were given
            inside = Path(os.path.relpath(path, audited.root)).as_posix()
        name = audited.labels.get(inside)
        if name in names and label in (-1, names.index(name)):
            rows.append(row)
            paths.append(inside)
            labels.append(names.index(name))
    if not rows:
        raise ValueError(
            f"--predictions {file}: expected predictions of the images of this folder, got none"
        )
    known = PredictionTable(names, tuple(paths), np.array(labels), predictions.probs[rows])
    print(
        f"--predictions {file} has {len(rows):,} of the {len(audited.labels):,} images, "
        f"{known.correct.mean():.1%} of them correct. Not used, because they are missing or have "
        f"another label now: {len(predictions.paths) - len(rows):,}"
    )
    return known


def _grouped(audited: Audit, issues: list[LabelIssue]) -> dict[str, list[Finding]]:
    """Return the findings of each kind, in the order of the kinds."""
    findings = [*audited.findings]
    for issue in issues:
        findings.append(Finding("label", (issue.path,), issue.detail))
    groups = groupby(findings, key=lambda finding: finding.kind)
    return {kind: list(group) for kind, group in groups}


def _size(audited: Audit) -> str:
    num_images = sum(audited.class_counts.values())
    return f"{num_images:,} images of {len(audited.class_counts)} classes in {audited.root}"


def _summary(audited: Audit, groups: dict[str, list[Finding]], *, folder: Path) -> str:
    lines = [_size(audited)]
    for kind, findings in groups.items():
        first = findings[0]
        if kind == "ignored":
            files = [IgnoredFile(finding.paths[0], finding.detail) for finding in findings]
            text = f"ignored files: {reasons_to_ignore(files)}"
        else:
            text = first.detail
            if first.paths:
                text = f"{' = '.join(first.paths)} ({text})"
            title, _ = KINDS[kind]
            more = " ..." if len(findings) > 1 else ""
            text = f"{title[0].lower()}{title[1:]}: {text}{more}"
        lines.append(f"  {len(findings):>6,}  {text}")
    if not groups:
        lines.append("  no findings")
    lines.append(f"See {folder / 'audit.html'}")
    if audited.quarantine:
        lines.append(
            f"Leave out {len(audited.quarantine):,} of the images with --data.quarantine "
            f"{folder / 'quarantine.csv'}"
        )
    if groups:
        lines.append("The exit status is 1, because there are findings")
    return "\n".join(map(printable, lines))


def _json(audited: Audit, issues: list[LabelIssue]) -> str:
    paths = {issue.path for issue in issues}
    for finding in audited.findings:
        paths.update(finding.paths)
    credits = read_credits(audited.root)
    content = {
        "root": str(audited.root),
        "num_images": sum(audited.class_counts.values()),
        "class_counts": audited.class_counts,
        "findings": [finding._asdict() for finding in audited.findings],
        "label_issues": [issue._asdict() for issue in issues],
        "quarantine": [row._asdict() for row in audited.quarantine],
        "credits": {path: credits[path]._asdict() for path in credits if path in paths},
    }
    return json.dumps(content, indent=2)


def _page(audited: Audit, groups: dict[str, list[Finding]]) -> str:
    largest = max(audited.class_counts.values())
    class_counts = audited.class_counts.items()
    bars = [Bar(name, count / largest, f"{count:,}") for name, count in class_counts]
    note = f"{_size(audited)}. No findings."
    if groups:
        note = (
            f"{_size(audited)}. Findings: {sum(map(len, groups.values())):,}. Images in the list "
            f"`quarantine.csv` beside this page, ticked below: {len(audited.quarantine):,}. Tick "
            "others, save the list with the button, and train with `--data.quarantine`."
        )
    header = quarantine_text([])
    lines = {}
    for row in audited.quarantine:
        lines[row.path] = quarantine_text([row]).removeprefix(header)

    def thumbnail(path: str, *, reason: str) -> Picture:
        other = quarantine_text([QuarantineRow(path, "", reason)]).removeprefix(header)
        picture = photo_picture(audited.root, path)
        return picture._replace(row=lines.get(path, other), ticked=path in lines)

    sections = [Section(note=note), Section("Images per class", bars=bars)]
    for findings in groups.values():
        sections.append(_section(findings, thumbnail=thumbnail))
    title = f"Audit of {audited.root.resolve().name}"
    download = Download("quarantine.csv", header, [*lines.values()]) if groups else None
    return page_html(title, sections, download=download)


def _section(findings: list[Finding], *, thumbnail: Callable[..., Picture]) -> Section:
    """Return the section of a kind of findings, with pictures if the images can be decoded."""
    title, meaning = KINDS[findings[0].kind]
    heading = f"{title} ({len(findings):,})"
    if len(findings) > _MAX_FINDINGS:
        meaning += f" The first {_MAX_FINDINGS} are shown; all are in `audit.json`."
    first = findings[:_MAX_FINDINGS]
    if findings[0].kind in ("unreadable", "empty", "classes", "ignored", "imbalance"):
        rows = [[*finding.paths, finding.detail] for finding in first]
        return Section(heading, note=meaning, table=Table(rows))
    cards = []
    for finding in first:
        pictures = [thumbnail(path, reason=finding.kind) for path in finding.paths]
        cards.append(Card(finding.detail, pictures))
    return Section(heading, note=meaning, cards=cards)
