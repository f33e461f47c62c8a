"""Names of files and classes as text for a terminal and for a spreadsheet."""

from __future__ import annotations

import pytest

from flowers.names import csv_cell, csv_name, printable


def test_control_characters_are_printed_as_escapes():
    assert printable("a\x1b[31m\nb\udcff\u202ec") == r"a\x1b[31m\nb\udcff\u202ec"
    assert printable("Gänseblümchen 雏菊.jpg") == "Gänseblümchen 雏菊.jpg"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-rose", "@x", "\t=1", "'=1", "'", "''a", "label"])
def test_a_name_that_looks_like_a_formula_is_text_and_reads_back(name):
    cell = csv_cell(name, "label")
    assert cell == f"'{name}"
    assert csv_name(cell, "label") == name


@pytest.mark.parametrize("name", ["", "a", "rose-1=2.jpg", "0.25", "it's"])
def test_other_names_are_cells_as_they_are(name):
    assert csv_cell(name, "label") == csv_name(name, "label") == name
    assert csv_name("'tis.jpg") == "'tis.jpg"  # a cell of another program
