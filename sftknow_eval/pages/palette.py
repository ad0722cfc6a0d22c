"""The colours of charts and pages, each in a light and a dark version.

Charts name colours by CSS variable, so that one drawing reads in both themes. Series differ in
lightness as well as in hue (for colour-blind readers), and have a contrast of at least 3:1 with
the page in both themes; `tests/pages/test_palette.py` computes it.
"""

from __future__ import annotations

COLOURS: dict[str, tuple[str, str]] = {
    "page": ("#fcfcfb", "#14181d"),
    "raised": ("#ffffff", "#1b2027"),
    "sunken": ("#f1f3f4", "#20262e"),
    "line": ("#d9dde1", "#333b45"),
    "edge": ("#7d8790", "#7a8591"),
    "ink": ("#1a1f26", "#e6e9ed"),
    "muted": ("#555e68", "#a3adb8"),
    "accent": ("#0b5fa5", "#7cc0f7"),
    "good": ("#0a6b4f", "#5fd0a8"),
    "bad": ("#b02a1f", "#ff9d90"),
    "series-1": ("#0069b4", "#5aa9ee"),
    "series-2": ("#c4560a", "#f08a3c"),
    "series-3": ("#00805f", "#2fb58d"),
    "series-4": ("#a3457f", "#dc8cbb"),
    "series-5": ("#2b8fc4", "#a5defa"),
    "series-6": ("#8f7400", "#d9be45"),
    "series-7": ("#5b4a9c", "#b3a4f2"),
    "series-8": ("#68717d", "#9aa4b0"),
    "stratum-0": ("#4b2a7b", "#b79df0"),
    "stratum-1": ("#3a5a9a", "#7fa6ee"),
    "stratum-2": ("#1f7f8c", "#4fc0cc"),
    "stratum-3": ("#2d8f57", "#6fd48f"),
    "stratum-4": ("#8a8a00", "#e6dd55"),
    "kept": ("#0069b4", "#5aa9ee"),
    "lost": ("#c4560a", "#f08a3c"),
    "gained": ("#00805f", "#2fb58d"),
    "unknown": ("#8a939d", "#76818d"),
}


def var(name: str) -> str:
    """Return a colour as a CSS value.

    Raises:
        KeyError: there is no such colour.
    """
    COLOURS[name]
    return f"var(--{name})"


SERIES = tuple(var(f"series-{i}") for i in range(1, 9))
STRATA = tuple(var(f"stratum-{i}") for i in range(5))
# Beside the colour, so that a chart can be read without it.
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3], [10, 4], [3, 1])
SHAPES = (
    *("circle", "square", "triangle-up", "diamond"),
    *("cross", "triangle-down", "triangle-right", "triangle-left"),
)


def css() -> str:
    """Return the colours as CSS variables that follow the page's colour scheme."""
    lines = [f"  --{name}: light-dark({light}, {dark});" for name, (light, dark) in COLOURS.items()]
    return ":root {\n" + "\n".join(lines) + "\n}\n"
