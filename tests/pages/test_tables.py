"""Tables as data; expected Markdown is written out by hand."""

from __future__ import annotations

import pytest

from sftknow_eval.pages.tables import Cell, Column, Table, percent, share


def test_markdown_has_caption_heads_alignment_and_note() -> None:
    columns = [Column("stratum", numeric=False), Column("lost"), Column("gained")]
    rows = [[Cell("0"), Cell("12.0", "8.0 to 17.0"), Cell("1", beside="paper 2")]]
    table = Table("t", "Facts", columns, rows, groups=[("", 1), ("ID", 2)], note="A note.")
    assert table.markdown() == (
        "**Facts**\n\n"
        "| stratum | ID: lost | ID: gained |\n"
        "| --- | ---: | ---: |\n"
        "| 0 | 12.0 (8.0 to 17.0) | 1 (paper 2) |\n\n"
        "A note.\n"
    )


@pytest.mark.parametrize("text", ["a|b", "<script>", "`x`", "[x](y)", "two\nlines", "*b*", "\\"])
def test_markdown_shows_any_text_as_it_is(text: str) -> None:
    table = Table("t", "c", [Column("head", numeric=False)], [[Cell(text)]])
    line = table.markdown().splitlines()[-1]
    assert line.startswith("| ")
    assert line.endswith(" |")
    body = line[2:-2]
    assert "\n" not in body
    for special in "|<>`[]*":
        assert body.count(special) == body.count(f"\\{special}")


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of 1, not 2"):
        Table("t", "c", [Column("a"), Column("b")], [[Cell("1")]])


def test_what_was_not_measured_is_a_dash_and_never_0() -> None:
    assert percent(None) == "\N{EN DASH}"
    cell = share({"value": None, "low": None, "high": None})
    assert (cell.text, cell.title) == ("\N{EN DASH}", "not measured")
    assert share({"value": 0.0, "low": 0.0, "high": 0.1}).text == "0.0"


def test_a_share_carries_its_interval_and_a_number_to_sort_by() -> None:
    cell = share({"value": 0.25, "low": 0.1, "high": 0.5})
    assert (cell.text, cell.note, cell.sort) == ("25.0", "10.0 to 50.0", 0.25)
