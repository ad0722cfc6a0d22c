"""A report as sections of paragraphs, tables and figures: the HTML page and the Markdown of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from sftknow_eval.pages.bundle import CHART_SCRIPTS
from sftknow_eval.pages.charts import Figure
from sftknow_eval.pages.render import Pages
from sftknow_eval.pages.tables import Table

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Some sentences.

    Attributes:
        look: how it is set: `note` is smaller, `callout` and `warn` are set off.
    """

    text: str
    look: Literal["", "note", "callout", "warn"] = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True, slots=True)
class Code:
    """Commands to copy."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True, slots=True)
class Tiles:
    """A few numbers that matter most: (name, number, what it is)."""

    items: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True, slots=True)
class Definitions:
    """Pairs of a word and what it means here."""

    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "definitions"


@dataclass(frozen=True, slots=True)
class Tabled:
    """A table; `words` lets long texts in its cells break."""

    table: Table
    words: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures, side by side where there is room."""

    figures: Sequence[Figure]
    kind: ClassVar[str] = "figures"


@dataclass(frozen=True, slots=True)
class Links:
    """Files beside the report: (file, what it holds)."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "links"


Block = Paragraph | Heading | Code | Tiles | Definitions | Tabled | Figures | Links


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report with its heading."""

    id: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A report.

    Attributes:
        kicker: above the title: what kind of report it is.
        lead: the findings, most important first.
        opening: blocks before the first section.
    """

    title: str
    kicker: str
    lead: Sequence[str]
    opening: Sequence[Block]
    sections: Sequence[Section]

    def html(self) -> str:
        """Return one page with everything in it."""
        return Pages([TEMPLATES]).page(
            "report.html",
            title=self.title,
            scripts=CHART_SCRIPTS,
            description=self.lead[0] if self.lead else "",
            document=self,
        )

    def markdown(self, level: int = 1) -> str:
        """Return the report in GitHub's Markdown, with figures in words.

        Args:
            level: of the title's heading.
        """
        marks = "#" * level
        findings = "\n".join(f"- {sentence}" for sentence in self.lead[1:])
        parts = [f"{marks} {self.title}", *self.lead[:1], findings, *map(_markdown, self.opening)]
        for section in self.sections:
            parts += [f"{marks}# {section.title}", *map(_markdown, section.blocks)]
        return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Paragraph(text, "callout" | "warn"):
            return f"> {text}"
        case Paragraph(text):
            return text
        case Heading(text):
            return f"### {text}"
        case Code(text):
            return f"```console\n{text}\n```"
        case Tiles(items):
            return "\n".join(f"- {name}: **{number}** {what}" for name, number, what in items)
        case Definitions(pairs):
            return "\n".join(f"- **{word}**: {meaning}" for word, meaning in pairs)
        case Tabled(table):
            return table.markdown()
        case Figures(figures):
            return "\n\n".join(f"*{figure.title}.* {figure.text}" for figure in figures)
        case Links(items):
            return "\n".join(f"- [{name}]({name}): {what}" for name, what in items)
