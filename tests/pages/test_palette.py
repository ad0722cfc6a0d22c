"""Contrast of the theme's colours, computed as WCAG 2.2 defines it."""

from __future__ import annotations

import pytest

from sftknow_eval.pages.palette import COLOURS, SERIES, STRATA, var

PAGES = ("page", "raised")
TEXTS = ("ink", "muted", "accent", "good", "bad")
MARKS = [name for name in COLOURS if name.startswith(("series", "stratum", "kept", "lost", "gain"))]


def _luminance(colour: str) -> float:
    """Source: WCAG 2.2, definition of relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_computed_as_defined() -> None:
    # Black on white is 21:1 by the definition; #777777 on white is the known 4.48:1.
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("text", TEXTS)
def test_text_has_four_and_a_half_to_one(text: str, theme: int) -> None:
    for page in (*PAGES, "sunken"):
        assert _contrast(COLOURS[text][theme], COLOURS[page][theme]) >= 4.5, page


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("mark", [*MARKS, "edge", "unknown"])
def test_marks_have_three_to_one(mark: str, theme: int) -> None:
    for page in PAGES:
        assert _contrast(COLOURS[mark][theme], COLOURS[page][theme]) >= 3, page


def test_an_unknown_colour_is_refused() -> None:
    assert var("lost") == "var(--lost)"
    assert len(set(SERIES)) == 8
    assert len(set(STRATA)) == 5
    with pytest.raises(KeyError):
        var("pink")
