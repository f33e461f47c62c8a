"""``python -m flowers audit``: look at the data before a number is believed."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowers.data import (
    KINDS,
    Audit,
    DuplicateRule,
    Finding,
    IgnoredFile,
    audit_folder,
    default_cache_dir,
    ensure_root,
    load_thumbnail,
    quarantine_text,
    read_credits,
    reasons_to_ignore,
)
from flowers.evaluation import (
    Bar,
    Card,
    LabelIssue,
    Picture,
    PredictionTable,
    Section,
    Table,
    label_issues,
    page_html,
    read_predictions,
)
from flowers.run_folder import write_folder

if TYPE_CHECKING:
    from collections.abc import Callable

# More on a page helps nobody; the JSON has all.
_SHOWN = 200
_LABELS = (
    "Label issues",
    "Networks that were not trained on these images see another class in them. How many there are is an estimate "
    "(confident learning), and a network errs too, the more the less accurate it is: look before you relabel. None of "
    "them is on the quarantine list. The most likely wrong ones come first.",
)


def audit(
    root: str,
    *,
    out: str | None = None,
    predictions: str | None = None,
    duplicates: DuplicateRule = "near",
    min_side: int = 32,
    cache_dir: str | None = None,
) -> int:
    """Look for broken files, copies, contradicting labels and whatever else makes a number wrong.

    Writes audit.html (to look at), audit.json (the same facts) and quarantine.csv (for
    --data.quarantine). The exit status is 0 if nothing was found, 1 if something was, 2 if the
    audit could not run.

    Args:
        root: Folder root/<class>/<image> or root/{train,val,test}/<class>/<image>.
        out: New folder for the results; by default the next free lightning_logs/audit_<n>.
        predictions: The predictions.csv of cross_validate; with it, label issues are found too.
        duplicates: What counts as the same picture; not near, where different images look much
            alike.
        min_side: Images with a shorter side are reported as tiny, in pixels.
        cache_dir: Folder of the cache; by default flowers in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        FileExistsError: The folder for the results exists.
        ValueError: A folder to write into lies among the photos, or one to read is not what it
            should be.
        OSError: A folder or file cannot be read or written.
    """
    cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
    folder = ensure_root(root)
    for option, path in {"--out": Path(out or "lightning_logs"), "--cache_dir": cache}.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{option} {path}: expected a folder outside of {root}, where only photos lie. Give "
                f"another, as {option} {folder.resolve()}-{option.removeprefix('--')}"
            )
    if out is not None and Path(out).exists():
        raise FileExistsError(
            f"--out {out}: it exists. Give another name: what lies there may have been edited."
        )
    if predictions is not None and not Path(predictions).is_file():
        raise FileNotFoundError(
            f"--predictions {predictions}: expected a file, as cross_validate writes it"
        )
    asked = read_predictions(predictions, needs_labels=False) if predictions is not None else None
    found = audit_folder(folder, cache_dir=cache, duplicates=duplicates, min_side=min_side)
    issues: list[LabelIssue] = []
    if asked is not None:
        asked = _of_this_folder(asked, found, file=str(predictions))
        issues = label_issues(asked)
    texts = {
        "audit.html": _page(found, issues),
        "audit.json": _json(found, issues),
        "quarantine.csv": quarantine_text(found.quarantine),
    }
    target = write_folder(None if out is None else Path(out), texts, name="audit")
    print(_summary(found, issues, folder=Path(os.path.relpath(target))))
    return 1 if found.findings or issues else 0


def _of_this_folder(predictions: PredictionTable, found: Audit, *, file: str) -> PredictionTable:
    """Return the predictions of images that are still there under that label; say how many and how good they are."""
    names = predictions.class_names
    rows = []
    paths = []
    labels = []
    for row, (path, label) in enumerate(zip(predictions.paths, predictions.labels, strict=True)):
        inside = _inside(path, found)
        own = found.labels.get(inside)
        if own in names and label in (-1, names.index(own)):
            rows.append(row)
            paths.append(inside)
            labels.append(names.index(own))
    if not rows:
        raise ValueError(
            f"--predictions {file}: expected predictions of the images of this folder, got none of them"
        )
    known = PredictionTable(names, tuple(paths), np.array(labels), predictions.probs[rows])
    print(
        f"--predictions {file} has {len(rows):,} of the {len(found.labels):,} images, {known.correct.mean():.1%} of them "
        f"correct; {len(predictions.paths) - len(rows):,} more are gone, or have another label now"
    )
    return known


def _inside(path: str, found: Audit) -> str:
    """Return a path as the folder has it: ``predict`` writes paths as they were given."""
    if path in found.labels:
        return path
    return Path(os.path.relpath(path, found.root)).as_posix()


def _summary(found: Audit, issues: list[LabelIssue], *, folder: Path) -> str:
    lines = [
        f"{sum(found.class_counts.values()):,} images of {len(found.class_counts)} classes in {found.root}"
    ]
    for kind, findings in groupby(found.findings, key=lambda finding: finding.kind):
        group = [*findings]
        if kind == "ignored":
            files = [IgnoredFile(finding.paths[0], finding.detail) for finding in group]
            lines.append(f"  {len(files):>6,}  ignored files: {reasons_to_ignore(files)}")
        else:
            lines.append(_line(len(group), KINDS[kind].title, _named(group[0])))
    if issues:
        lines.append(_line(len(issues), _LABELS[0], f"{issues[0].path} ({_doubt(issues[0])})"))
    if len(lines) == 1:
        lines.append("  nothing found")
    lines.append(f"Look at {folder / 'audit.html'}")
    if found.quarantine:
        lines.append(
            f"Leave out {len(found.quarantine):,} images with --data.quarantine {folder / 'quarantine.csv'}"
        )
    return "\n".join(lines)


def _line(count: int, title: str, first: str) -> str:
    return f"  {count:>6,}  {title[0].lower()}{title[1:]}: {first}" + (" ..." if count > 1 else "")


def _named(finding: Finding) -> str:
    return " = ".join(finding.paths) + (f" ({finding.detail})" if finding.paths else finding.detail)


def _json(found: Audit, issues: list[LabelIssue]) -> str:
    shown = {path for finding in found.findings for path in finding.paths} | {
        issue.path for issue in issues
    }
    facts = {
        "root": str(found.root),
        "num_images": sum(found.class_counts.values()),
        "class_counts": found.class_counts,
        "findings": [finding._asdict() for finding in found.findings],
        "label_issues": [issue._asdict() for issue in issues],
        "quarantine": [row._asdict() for row in found.quarantine],
        "credits": {
            path: credit._asdict()
            for path, credit in read_credits(found.root).items()
            if path in shown
        },
    }
    return json.dumps(facts, indent=2)


def _page(found: Audit, issues: list[LabelIssue]) -> str:
    credits_by_path = read_credits(found.root)

    def picture(path: str) -> Picture:
        jpeg = io.BytesIO()
        with suppress(OSError):  # deleted since it was checked: only its name is shown
            load_thumbnail(found.root / path, longest=240).save(jpeg, "JPEG", quality=80)
        credit = credits_by_path.get(path)
        return Picture(jpeg.getvalue(), path, credit.photographer if credit else "")

    largest = max(found.class_counts.values())
    bars = [Bar(name, count / largest, f"{count:,}") for name, count in found.class_counts.items()]
    sections = [Section(note=_overview(found, issues)), Section("Images per class", bars=bars)]
    for kind, group in groupby(found.findings, key=lambda finding: finding.kind):
        sections.append(
            _section(KINDS[kind].title, KINDS[kind].meaning, list(group), picture=picture)
        )
    if issues:
        findings = [Finding("label", (issue.path,), _doubt(issue)) for issue in issues]
        sections.append(_section(*_LABELS, findings, picture=picture))
    return page_html(f"Audit of {found.root.resolve().name}", sections)


def _overview(found: Audit, issues: list[LabelIssue]) -> str:
    num_images = sum(found.class_counts.values())
    num_findings = len(found.findings) + len(issues)
    findings = f"{num_findings:,} findings" if num_findings else "Nothing found"
    text = (
        f"{num_images:,} images of {len(found.class_counts)} classes in {found.root}. {findings}."
    )
    if found.quarantine:
        text += (
            f" {len(found.quarantine):,} images are on the list `quarantine.csv` beside this page: "
            "delete the lines you disagree with, then train with it as `--data.quarantine`."
        )
    return text


def _doubt(issue: LabelIssue) -> str:
    return f"labelled {issue.label} ({issue.label_prob:.0%}), seen as {issue.suggested} ({issue.suggested_prob:.0%})"


def _section(
    title: str, meaning: str, findings: list[Finding], *, picture: Callable[[str], Picture]
) -> Section:
    """Return the section of findings of one kind, with pictures if the images can be decoded."""
    heading = f"{title} ({len(findings):,})"
    if len(findings) > _SHOWN:
        meaning += f" The first {_SHOWN} are shown; all are in `audit.json`."
    first = findings[:_SHOWN]
    if findings[0].kind in ("unreadable", "empty", "ignored", "imbalance"):
        rows = [(", ".join(finding.paths), finding.detail) for finding in first]
        return Section(heading, note=meaning, table=Table(rows))
    cards = [Card(finding.detail, list(map(picture, finding.paths))) for finding in first]
    return Section(heading, note=meaning, cards=cards)
