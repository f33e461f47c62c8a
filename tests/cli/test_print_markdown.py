from __future__ import annotations

from flowers.cli.print_markdown import print_markdown


def test_tables_are_aligned_and_names_are_unchanged(capsys):
    print_markdown("# Runs\n\n| run | score |\n|---|---|\n| a*b*c | 1 |\n| <b> __x__ [y](z) | 22 |")
    output = capsys.readouterr().out
    title, *_, first, second = output.splitlines()
    assert title == "Runs"
    assert first.split() == ["a*b*c", "1"]
    assert second.rsplit(None, 1) == [" <b> __x__ [y](z)", "22"]
    assert first.index("1") == second.index("22")
