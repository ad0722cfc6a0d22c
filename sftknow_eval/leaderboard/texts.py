"""Names and texts that strangers write: what they may hold, and what they may not look like.

Names are plain ASCII, so that no two that look alike differ. Texts to show are refused, not
cleaned, when they hold markup, invisible characters, or letters that pretend to be others.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_SLUG = r"^[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?$"
_HEX = r"^[0-9a-f]{64}$"

# Words of these scripts have letters that look like each other's.
_CONFUSABLE_SCRIPTS = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"})
_MARKUP = re.compile(r"[<>]|\]\(|&#|\b(?:javascript|vbscript|data)\s*:", re.IGNORECASE)
_LOOKALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "_": "", "-": "", ".": ""})
_URL = re.compile(r"^https://[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[A-Za-z0-9._~/%@+,=&?#-]*)?$")
_MAIL = re.compile(r"^[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+$")
_HANDLE = re.compile(r"^@[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?$")


def encodable(text: str) -> str:
    """Return a text with escapes for what is no Unicode: bytes of a file's name, half a pair."""
    return text.encode("utf-8", "backslashreplace").decode()


@functools.lru_cache(maxsize=4096)
def text_fault(text: str) -> str | None:
    """Return what keeps a text from being shown, or None.

    Refused are: markup, control and invisible characters, characters that are another one in
    disguise (changed by NFKC), and words that mix scripts with look-alike letters.
    """
    if text.isascii() and text.replace("\n", "").isprintable() and not _MARKUP.search(text):
        return None  # thousands of them on a board
    for character in text:
        category = unicodedata.category(character)
        if character != "\n" and category[0] == "C":
            return f"holds the control or invisible character U+{ord(character):04X}"
        if category in ("Zl", "Zp"):
            return f"holds the line separator U+{ord(character):04X}"
    if found := _MARKUP.search(text):
        return f"holds markup ({found.group()!r}); plain text was expected"
    if unicodedata.normalize("NFKC", text) != unicodedata.normalize("NFC", text):
        return "holds characters that stand for others (it changes under Unicode NFKC)"
    for word in re.findall(r"\w+", text):
        scripts = {script for script in _scripts(word) if script in _CONFUSABLE_SCRIPTS}
        if len(scripts) > 1:
            return f"mixes {' and '.join(sorted(scripts)).lower()} letters in one word ({word!r})"
    return None


def _scripts(word: str) -> Iterator[str]:
    for character in word:
        if character.isascii():
            if character.isalpha():
                yield "LATIN"
        elif character.isalpha():
            yield unicodedata.name(character, "UNKNOWN").split()[0]


def skeleton(name: str) -> str:
    """Return what is left of a name when characters that look alike are made equal."""
    return name.translate(_LOOKALIKES).replace("rn", "m").replace("vv", "w")


def _checked_slug(name: str) -> str:
    if ".." in name:
        raise ValueError("a name must not hold '..'")
    return name


def _checked_text(text: str) -> str:
    if fault := text_fault(text):
        raise ValueError(f"this text {fault}")
    return text


def _checked_contact(text: str) -> str:
    if not any(pattern.match(text) for pattern in (_URL, _MAIL, _HANDLE)):
        raise ValueError("give a mail address, an https:// address or a @handle")
    return text


def _checked_token(text: str) -> str:
    # A word as a special token would be taken out of outputs before they are judged.
    if not text or all(character.isalnum() or character.isspace() for character in text):
        raise ValueError(f"{text!r} is a word, not a special token such as </s>")
    return text


Slug = Annotated[str, StringConstraints(pattern=_SLUG), AfterValidator(_checked_slug)]
Hex = Annotated[str, StringConstraints(pattern=_HEX)]
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\n]*$"),
    AfterValidator(_checked_text),
]
Passage = Annotated[str, StringConstraints(max_length=4_000), AfterValidator(_checked_text)]
Contact = Annotated[str, StringConstraints(max_length=200), AfterValidator(_checked_contact)]
Licence = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")]
Token = Annotated[str, StringConstraints(max_length=64), AfterValidator(_checked_token)]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
