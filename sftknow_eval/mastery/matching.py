"""The one judge: does a text give the answer? Used by prober, tasks and verifier.

`contains` is the paper's rule and is monotone: text that is appended never turns a right
verdict into a wrong one, which is what lets generation stop at the answer. For that reason the
text is searched as it is, for each alias as given, composed (Unicode NFC) and decomposed (NFD):
to normalise the text instead would let an accent that is appended undo a match. Special tokens
are not text: take them out first (`strip_special`).

Source: section 3.1 (an alias of the object appears as a substring).
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def contains(text: str, aliases: Sequence[str]) -> bool:
    """Return whether any alias is a substring of `text`, case kept.

    Raises:
        ValueError: there is no alias, or one is empty.

    Source: section 3.1.
    """
    # 22 million calls in a full probe: any() would take twice the time.
    for form in _forms(_listed(aliases)):  # noqa: SIM110
        if form in text:
            return True
    return False


def contains_word(text: str, aliases: Sequence[str], *, ignore_case: bool = False) -> bool:
    """Return whether any alias stands in `text` with no letter or digit against its ends.

    `Rome` is in `to Rome, then` and not in `Romeo`. Combining marks and underscores count as
    parts of words.

    Args:
        text: what the model wrote.
        aliases: accepted answers.
        ignore_case: compare case-folded; the paper keeps case.

    Raises:
        ValueError: there is no alias, or one is empty.
    """
    fold: Callable[[str], str] = str.casefold if ignore_case else str
    folded = fold(text)
    return any(_stands_alone(fold(form), folded) for form in _forms(_listed(aliases)))


def begins(text: str, aliases: Sequence[str]) -> bool:
    """Return whether `text`, after white space, begins with an alias, case kept.

    Raises:
        ValueError: there is no alias, or one is empty.

    Source: section 4 (the answer comes at the start of the completion).
    """
    return text.lstrip().startswith(_forms(_listed(aliases)))


def may_begin(text: str, aliases: Sequence[str]) -> bool:
    """Return whether `text` could still begin with an alias once more is appended to it.

    A character that is not whole yet, at the end of the text, is left out of account.

    Raises:
        ValueError: there is no alias, or one is empty.
    """
    so_far = text.lstrip().rstrip("\ufffd")
    return any(form.startswith(so_far) for form in _forms(_listed(aliases)))


def exact_match(text: str, aliases: Sequence[str]) -> bool:
    """Return whether `text`, normalised, equals an alias, normalised.

    Normalised as in SQuAD: lower case, no ASCII punctuation, no English articles, single
    spaces. Where nothing would be left of an alias (`The`), its letters are compared as they are.

    Raises:
        ValueError: there is no alias, or one is empty.
    """
    normal = _normal(text)
    return any(normal == _normal(alias) for alias in _forms(_listed(aliases)))


def token_f1(text: str, aliases: Sequence[str]) -> float:
    """Return the best F1 over the words of `text` and of each alias, normalised as above.

    Raises:
        ValueError: there is no alias, or one is empty.
    """
    words = _normal(text).split()
    return max(_f1(words, _normal(alias).split()) for alias in _forms(_listed(aliases)))


def strip_special(text: str, special_tokens: Iterable[str]) -> str:
    """Return `text` without its special tokens.

    They are looked for once, from left to right, the longest that fits at each place: what comes
    together where one was taken out is the model's own text and stays, as in a tokenizer that
    skips them while decoding.
    """
    if isinstance(special_tokens, str):
        raise ValueError(f"special tokens must be a list of texts, found {special_tokens!r}")
    pattern = _special(tuple(special_tokens))
    return pattern.sub("", text) if pattern else text


@functools.lru_cache(maxsize=64)
def _special(tokens: tuple[str, ...]) -> re.Pattern[str] | None:
    ordered = sorted({token for token in tokens if token}, key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _listed(aliases: Sequence[str]) -> tuple[str, ...]:
    # A text alone would be taken for a list of letters, each of them an alias.
    if isinstance(aliases, str):
        raise ValueError(f"aliases must be a list of texts, found the text {aliases!r}")
    return tuple(aliases)


@functools.lru_cache(maxsize=4096)
def _forms(aliases: tuple[str, ...]) -> tuple[str, ...]:
    if not aliases or not all(alias.strip() for alias in aliases):
        raise ValueError(f"aliases must be non-empty texts, found {aliases!r}")
    forms = [f for a in aliases for f in (a, *(_unicode(n, a) for n in ("NFC", "NFD")))]
    return tuple(dict.fromkeys(forms))


def _unicode(form: Literal["NFC", "NFD"], text: str) -> str:
    return text if text.isascii() else unicodedata.normalize(form, text)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"


def _stands_alone(alias: str, text: str) -> bool:
    start = text.find(alias)
    while start >= 0:
        end = start + len(alias)
        before = start > 0 and _in_word(text[start - 1]) and _in_word(alias[0])
        after = end < len(text) and _in_word(text[end]) and _in_word(alias[-1])
        if not before and not after:
            return True
        start = text.find(alias, start + 1)
    return False


def _normal(text: str) -> str:
    lowered = _unicode("NFC", text).casefold()
    bare = " ".join(_ARTICLES.sub(" ", lowered.translate(_PUNCTUATION)).split())
    return bare or " ".join(lowered.split())


def _f1(words: list[str], wanted: list[str]) -> float:
    shared = (Counter(words) & Counter(wanted)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(words), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
