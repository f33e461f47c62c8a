from __future__ import annotations

import pytest

from flowers.csv_files import csv_cell, csv_name, csv_text, read_csv

HEADER = ("path", "label", "reason")
ROWS = [['a "b", c.jpg', "cat", "too; dark"], ["dog/\udcff.jpg", "", "x\ty"], ["d.jpg", "", ""]]


def test_a_file_reads_back_as_it_was_written(tmp_path):
    file = tmp_path / "list.csv"
    file.write_bytes(csv_text(HEADER, ROWS).encode("utf-8", "surrogateescape"))
    assert read_csv(file) == ([*HEADER], ROWS)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_saved_by_a_spreadsheet_program_is_read(separator, encoding, line_end, tmp_path):
    lines = ["path,label,reason", "a.jpg,rosé,", ",,", '"b c.jpg",cat,dark', ""]
    text = line_end.join(line.replace(",", separator) for line in lines)
    file = tmp_path / "list.csv"
    file.write_bytes(text.encode(encoding))
    rows = [["a.jpg", "rosé", ""], ["b c.jpg", "cat", "dark"]]
    assert read_csv(file) == ([*HEADER], rows)


def test_an_empty_file_has_no_header(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text("")
    assert read_csv(file) == ([], [])


def test_a_file_that_is_not_csv_is_named(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(f"path,label\n{200_000 * 'x'},cat\n")
    with pytest.raises(ValueError, match=r"list\.csv: expected a CSV file \(field larger"):
        read_csv(file)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-rose", "@x", "\t=1", "'=1", "'", "''a", "label"])
def test_a_name_that_looks_like_a_formula_is_text_and_reads_back(name):
    cell = csv_cell(name, "label")
    assert cell == f"'{name}"
    assert csv_name(cell, "label") == name


@pytest.mark.parametrize("name", ["", "a", "rose-1=2.jpg", "0.25", "it's"])
def test_other_names_are_cells_as_they_are(name):
    assert csv_cell(name, "label") == csv_name(name, "label") == name
    assert csv_name("'tis.jpg") == "'tis.jpg"  # written by another program


def test_names_with_other_delimiters_do_not_change_that_of_our_files(tmp_path):
    header = ["path", "label", "a;b;c;d;e;f", "g;h;i;j;k"]
    (tmp_path / "x.csv").write_text(csv_text(header, [["1.jpg", "x", "0.5", "0.5"]]), newline="")
    assert read_csv(tmp_path / "x.csv") == (header, [["1.jpg", "x", "0.5", "0.5"]])
