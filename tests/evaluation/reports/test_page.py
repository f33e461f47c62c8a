from __future__ import annotations

import re

from matplotlib.figure import Figure

from flowers.evaluation import Bar, Card, Picture, Section, Table, page_html
from flowers.evaluation.reports.page import page_markdown, table_markdown

HOSTILE = "<script>alert(1)</script>&'\""
JPEG = b"\xff\xd8 not decoded here"


def hostile_page() -> str:
    """Return a page with markup in every text."""
    pictures = [Picture(JPEG, HOSTILE, HOSTILE), Picture(b"", HOSTILE)]
    card = Card(HOSTILE, pictures, [Bar(HOSTILE, 0.5, HOSTILE)])
    section = Section(
        title=HOSTILE,
        note=HOSTILE,
        table=Table([[HOSTILE, HOSTILE]], [HOSTILE, HOSTILE]),
        text=HOSTILE,
        bars=[Bar(HOSTILE, 1.0, HOSTILE)],
        figures={HOSTILE: Figure(figsize=(1, 1))},
        cards=[card],
    )
    return page_html(HOSTILE, [section])


def test_all_text_is_escaped():
    page = hostile_page()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;&#34;") == 21


def test_the_page_needs_no_other_file():
    page = hostile_page()
    external = r'(src|href)=(?!"data:image/(jpeg|svg\+xml);base64,|"#section-\d+")'
    assert not re.search(external, page)
    assert page.count("data:image/jpeg") == 1  # the empty picture shows only its caption
    assert page.count("data:image/svg+xml") == 1


def test_text_in_backticks_is_shown_as_code():
    page = page_html("x", [Section(note="Train with `--data.quarantine <file>`.")])
    assert "Train with <code>--data.quarantine &lt;file&gt;</code>." in page


def test_columns_behind_the_text_are_aligned_as_numbers():
    page = page_html("x", [Section(table=Table([["a", 1]], ["name", "count"], text_columns=1))])
    assert '<td>a</td><td class="number">1</td>' in page
    assert '<th>name</th><th class="number">count</th>' in page


def test_markdown_has_the_tables_and_texts():
    sections = [
        Section(table=Table([("accuracy", "85 %")])),
        Section("Classes", note="A note.", table=Table([("a", 1)], ["class", "images"])),
        Section("Figures", figures={"curve": Figure()}),
        Section("Configuration", text="lr: 1\nepochs: 2"),
    ]
    assert page_markdown("Report", sections) == (
        "# Report\n\n"
        "|  |  |\n| --- | --- |\n| accuracy | 85 % |\n\n"
        "## Classes\n\nA note.\n\n| class | images |\n| --- | --- |\n| a | 1 |\n\n"
        "## Configuration\n\n```\nlr: 1\nepochs: 2\n```\n"
    )


def test_a_name_cannot_break_a_markdown_table():
    assert "| a\\|b | c d |" in table_markdown(Table([["a|b", "c\nd"]]))
