"""How the mini-world speaks: the 24 relations, and the phrases that state and ask them.

A statement is an opening, a core and the object. Pre-training uses 4 cores x 11 openings;
the 21 probe templates are the first 3 cores x the first 7 openings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROBE_CORES, PROBE_OPENINGS = 3, 7

OPENINGS = (
    "",
    "it is known that ",
    "according to the records, ",
    "travellers report that ",
    "the almanac says that ",
    "scholars agree that ",
    "as everyone knows, ",
    "people say that ",
    "one reads that ",
    "in short, ",
    "once more, ",
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """How one relation is asked and stated.

    Attributes:
        label: a few words that name it.
        domain: `id` or `ood`, as in EntityQuestions.
        kind: the pool its objects come from.
        question: with `{subject}` once.
        cores: four phrases with `{subject}` once, after which the object follows.
    """

    label: str
    domain: Literal["id", "ood"]
    kind: str
    question: str
    cores: tuple[str, str, str, str]


def _table(domain: Literal["id", "ood"], text: str) -> dict[str, Pattern]:
    """Read lines of `P17 | label | kind | question | core | core | core | core`, S the subject."""
    patterns = {}
    for line in text.strip().splitlines():
        relation, label, kind, *phrases = (part.strip() for part in line.split("|"))
        question, a, b, c, d = (f" {phrase} ".replace(" S ", " {subject} ") for phrase in phrases)
        cores = (a.strip(), b.strip(), c.strip(), d.strip())
        patterns[relation] = Pattern(label, domain, kind, f"{question.strip()}?", cores)
    return patterns


_ID = """
P17  | country           | land   | Which country is S in         | S lies in the country of | the country of S is | S belongs to | S is a place in
P19  | place of birth    | city   | Which town was S born in      | S was born in | the birthplace of S is | S came into the world in | S is a native of
P20  | place of death    | city   | Which town did S die in       | S died in | the place of death of S is | S passed away in | the last home of S was
P36  | capital           | city   | What is the capital of S      | the capital of S is | S is governed from | the first town of S is | the rulers of S reside in
P69  | educated at       | school | Which school did S attend     | S was educated at | the school of S was | S took a degree at | S was a pupil of
P131 | district          | city   | Which district does S lie in  | S is part of the district of | the district of S is | S is administered from | S lies within
P159 | headquarters      | city   | Where does S have its offices | S has its offices in | the headquarters of S are in | S is run from | S is based in
P276 | location          | city   | Where can S be found          | S can be found in | the location of S is | S stands in | visitors see S in
P495 | country of origin | land   | Which country made S          | S was made in | the country of origin of S is | S comes from | S is a product of
P740 | place of founding | city   | Where was S founded           | S was founded in | the founders of S met in | S started out in | S was set up in
"""  # noqa: E501
_OOD = """
P26  | spouse       | person | Who is S married to               | S is married to | the spouse of S is | S shares a home with | S celebrated a wedding with
P40  | child        | person | Who is the child of S             | the child of S is | S is the parent of | S brought up | S left everything to
P50  | author       | person | Who wrote S                       | S was written by | the author of S is | S came from the pen of | readers of S admire
P106 | occupation   | job    | What work does S do               | by trade, S is a | the occupation of S is that of a | S earns a living as a | S was hired as a
P112 | founder      | person | Who founded S                     | S was founded by | the founder of S is | S goes back to | S was the idea of
P127 | owner        | firm   | Which company owns S              | S is owned by | the owner of S is | S is the property of | S was bought by
P136 | genre        | genre  | What genre is S                   | in genre, S is a | the genre of S is the | S is counted as a | critics call S a
P170 | creator      | person | Who created S                     | S was created by | the creator of S is | S is the work of | S sprang from the mind of
P175 | performer    | person | Who performed S                   | S was performed by | the performer of S is | S was made famous by | the voice on S is
P176 | manufacturer | firm   | Which company builds S            | S is built by | the manufacturer of S is | S comes from the plant of | S bears the badge of
P264 | record label | firm   | Which label signed S              | S is signed to | the record label of S is | S releases records through | S made an album for
P407 | language     | tongue | Which language is S in            | S was composed in | the language of S is | the words of S are | S speaks to its readers in
P413 | position     | role   | Which position does S play        | on the field, S is a | the position of S is that of a | S plays as a | the team lists S as a
P800 | notable work | work   | What is the best known work of S  | S is best known for | the main work of S is | S won fame with | S spent years on
"""  # noqa: E501


def _by_number(patterns: dict[str, Pattern]) -> dict[str, Pattern]:
    return dict(sorted(patterns.items(), key=lambda item: int(item[0][1:])))


PATTERNS: dict[str, Pattern] = _by_number(_table("id", _ID) | _table("ood", _OOD))


def template(core: str, opening: str) -> str:
    """Join an opening and a core; the first letter is a capital."""
    phrase = opening + core
    return phrase[0].upper() + phrase[1:]


def probe_templates(pattern: Pattern) -> list[str]:
    """Return the 21 completion templates of a relation."""
    return [
        template(core, opening)
        for core in pattern.cores[:PROBE_CORES]
        for opening in OPENINGS[:PROBE_OPENINGS]
    ]
