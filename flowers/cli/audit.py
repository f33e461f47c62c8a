"""``python -m flowers audit``: check the images and labels of a folder."""

import json
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np

from flowers import data, evaluation
from flowers.cli.options_in_messages import name_options, training_options
from flowers.cli.photo_picture import photo_picture
from flowers.printable import printable
from flowers.run_folder import write_folder

# Maximum number of findings of each kind on the page; audit.json has all.
_MAX_FINDINGS = 200


def audit(
    root: str,
    *,
    out: Path | None = None,
    predictions: str | None = None,
    duplicates: data.DuplicateRule = "near",
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
        predictions: The predictions.csv of cross_validate, to find label issues as well.
        duplicates: Which images count as duplicates; use exact if different images look alike.
        min_side: Images with a side shorter than this, in pixels, are reported as tiny.
        max_megapixels: Largest image that is decoded, in megapixels; by default 179.
        cache_dir: Folder of the cache; by default $XDG_CACHE_HOME/flowers or ~/.cache/flowers.

    Raises:
        FileExistsError: The folder for the results exists.
        ValueError: A folder to write into is inside the folder of photos, or an input is invalid.
        OSError: A folder or file cannot be read or written.
    """
    data.allow_megapixels(max_megapixels)
    cache = Path(cache_dir) if cache_dir else data.default_cache_dir()
    folder = data.ensure_root(root)
    for option, path in {"--out": out or Path("lightning_logs"), "--cache_dir": cache}.items():
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"{option} {path}: expected a folder outside {root}, got one inside. Give another "
                f"folder, such as {option} {folder.resolve()}-{option.removeprefix('--')}"
            )
    if out is not None and out.exists():
        raise FileExistsError(f"--out {out}: the folder exists. Give another name.")
    table = None
    if predictions is not None:
        table = evaluation.read_predictions(predictions, needs_labels=False)
    audited = data.audit_folder(folder, cache_dir=cache, duplicates=duplicates, min_side=min_side)
    issues: list[evaluation.LabelIssue] = []
    if table is not None:
        issues = evaluation.label_issues(_of_this_folder(table, audited, file=str(predictions)))
    findings = [*audited.findings]
    for issue in issues:
        findings.append(data.Finding("label", (issue.path,), issue.detail))
    # groupby needs the findings of one kind to be adjacent, as they are here.
    by_kind = groupby(findings, key=lambda finding: finding.kind)
    groups = {kind: list(group) for kind, group in by_kind}
    texts = {
        "audit.html": _page(audited, groups),
        "audit.json": _json(audited, issues),
        "quarantine.csv": data.quarantine_text(audited.quarantine),
    }
    target = write_folder(out, texts, name="audit")
    print(_summary(audited, groups, folder=Path(os.path.relpath(target))))
    return 1 if groups else 0


def _of_this_folder(
    predictions: evaluation.PredictionTable, audited: data.Audit, *, file: str
) -> evaluation.PredictionTable:
    """Return the predictions of images whose label is unchanged or unknown; print their number."""
    names = predictions.class_names
    paths: dict[int, str] = {}  # by row of the predictions
    for row, (path, label) in enumerate(zip(predictions.paths, predictions.labels, strict=True)):
        inside = path
        if path not in audited.labels:  # predict writes paths as they were given
            inside = Path(os.path.relpath(path, audited.root)).as_posix()
        name = audited.labels.get(inside)
        if name in names and label in (-1, names.index(name)):
            paths[row] = inside
    if not paths:
        raise ValueError(
            f"--predictions {file}: expected predictions of the images of this folder, got none"
        )
    labels = np.array([names.index(audited.labels[path]) for path in paths.values()])
    probs = predictions.probs[[*paths]]
    known = evaluation.PredictionTable(names, tuple(paths.values()), labels, probs)
    print(
        f"--predictions {file}: used for {len(paths):,} of the {len(audited.labels):,} images "
        f"({known.accuracy:.1%} of them classified correctly). Not used, because an image is "
        f"missing or has another label now: {len(predictions.paths) - len(paths):,}"
    )
    return known


def _size(audited: data.Audit) -> str:
    num_classes = len(audited.class_counts)
    return f"{len(audited.labels):,} images of {num_classes} classes in {audited.root}"


def _summary(audited: data.Audit, groups: dict[str, list[data.Finding]], *, folder: Path) -> str:
    lines = [_size(audited)]
    for kind, findings in groups.items():
        first = findings[0]
        if kind == "ignored":
            files = [data.IgnoredFile(finding.paths[0], finding.detail) for finding in findings]
            text = data.reasons_to_ignore(files)
        else:
            text = first.detail
            if first.paths:
                text = f"{' = '.join(first.paths)} ({text})"
            if len(findings) > 1:
                text += " ..."
        title, _ = data.KINDS[kind]
        lines.append(f"  {len(findings):>6,}  {title[0].lower()}{title[1:]}: {text}")
    if not groups:
        lines.append("  no findings")
    lines.append(f"See {folder / 'audit.html'}")
    if audited.quarantine:
        lines.append(
            f"To leave out {len(audited.quarantine):,} of the images, give --data.quarantine "
            f"{folder / 'quarantine.csv'}"
        )
    if groups:
        lines.append("The exit status is 1, because there are findings")
    return "\n".join(map(printable, lines))


def _json(audited: data.Audit, issues: list[evaluation.LabelIssue]) -> str:
    paths = {issue.path for issue in issues}
    for finding in audited.findings:
        paths.update(finding.paths)
    credits = data.read_credits(audited.root)
    content = {
        "root": str(audited.root),
        "num_images": len(audited.labels),
        "class_counts": audited.class_counts,
        "findings": [finding._asdict() for finding in audited.findings],
        "label_issues": [issue._asdict() for issue in issues],
        "quarantine": [row._asdict() for row in audited.quarantine],
        "credits": {path: credits[path]._asdict() for path in credits if path in paths},
    }
    return json.dumps(content, indent=2)


def _page(audited: data.Audit, groups: dict[str, list[data.Finding]]) -> str:
    largest = max(audited.class_counts.values())
    class_counts = audited.class_counts.items()
    bars = [evaluation.Bar(name, count / largest, f"{count:,}") for name, count in class_counts]
    note = f"{_size(audited)}. No findings."
    if groups:
        note = (
            f"{_size(audited)}. Findings: {sum(map(len, groups.values())):,}. Images in the list "
            f"`quarantine.csv` beside this page, ticked below: {len(audited.quarantine):,}. Change "
            "the ticks, save the list with the button, and give it to `--data.quarantine`."
        )
    header = data.quarantine_text([])
    lines = {}
    for row in audited.quarantine:
        lines[row.path] = data.quarantine_text([row]).removeprefix(header)

    def thumbnail(path: str, *, reason: str) -> evaluation.Picture:
        other = data.quarantine_text([data.QuarantineRow(path, "", reason)]).removeprefix(header)
        return photo_picture(audited.root, path)._replace(row=lines.get(path, other))

    sections = [evaluation.Section(note=note), evaluation.Section("Images per class", bars=bars)]
    for findings in groups.values():
        sections.append(_section(findings, thumbnail=thumbnail))
    title = f"Audit of {audited.root.resolve().name}"
    download = evaluation.Download("quarantine.csv", header, [*lines.values()]) if groups else None
    return evaluation.page_html(title, sections, download=download)


def _section(
    findings: list[data.Finding], *, thumbnail: Callable[..., evaluation.Picture]
) -> evaluation.Section:
    """Return the section of a kind of findings, with pictures if the images can be decoded."""
    title, meaning = data.KINDS[findings[0].kind]
    options = {name: f"`{option}`" for name, option in training_options().items()}
    meaning = name_options(meaning, options)
    heading = f"{title} ({len(findings):,})"
    if len(findings) > _MAX_FINDINGS:
        meaning += f" The first {_MAX_FINDINGS} are shown; all are in `audit.json`."
    first = findings[:_MAX_FINDINGS]
    if findings[0].kind in ("unreadable", "empty", "classes", "ignored", "imbalance"):
        rows = [[*finding.paths, finding.detail] for finding in first]
        return evaluation.Section(heading, note=meaning, table=evaluation.Table(rows))
    cards = []
    for finding in first:
        pictures = [thumbnail(path, reason=finding.kind) for path in finding.paths]
        cards.append(evaluation.Card(finding.detail, pictures))
    return evaluation.Section(heading, note=meaning, cards=cards)
