"""EntityQuestions from its official archive, checked, into the cache.

Data: Sciavolino et al. 2021, MIT licence.
"""

from __future__ import annotations

import http.client
import logging
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import wrap_file

from sftknow_eval.artifacts import atomic_path, cache_dir
from sftknow_eval.errors import DataError
from sftknow_eval.mastery.archive import FactFiles

logger = logging.getLogger(__name__)

_COMMIT = "096c261f327431b30af7ff718670f4bd13214908"
SOURCES = (
    "https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip",
    f"https://github.com/princeton-nlp/EntityQuestions/archive/{_COMMIT}.zip",
)
# Of the 72 fact files at that commit, however they are archived.
CONTENT_DIGEST = "f2adedd53a6f573db918d4fa36031f6574c6ad1fb66f5aec7818c8919d492113"
# ID train, ID test, OOD test (Tables 1 and 8) and ID dev.
FACT_COUNTS = {"train id": 75944, "test id": 9555, "test ood": 11613, "dev id": 9580}
_TIMEOUT_SECONDS = 30
_CHUNK = 1 << 16


def entity_questions(
    count_facts: Callable[[Path], dict[str, int]], sources: tuple[str, ...] = SOURCES
) -> Path:
    """Return the archive of EntityQuestions in the cache, downloaded when it is not there.

    Its content is checked before it gets its name. Where the digest differs and the numbers of
    facts are those of the paper, that is said and the archive is used.

    Args:
        count_facts: the facts in an archive by split and domain, under the names of `FACT_COUNTS`.
        sources: addresses, tried in this order.

    Raises:
        DataError: no source gave an archive that holds these facts.
        OutOfSpace: the disk is full.
    """
    target = cache_dir() / "entity_questions" / "dataset.zip"
    if target.is_file():
        return target
    faults = []
    for url in sources:
        try:
            with atomic_path(target) as partial:
                _fetch(url, partial)
                _check(partial, url, count_facts)
            return target
        except DataError as error:
            logger.warning("%s could not be used: %s", url, error)
            faults.append(f"- {url}: {error}")
        except OSError as error:
            raise DataError(
                f"EntityQuestions cannot be kept as {target}: {error.strerror or error}. Set "
                "SFTKNOW_CACHE to a folder that can be written."
            ) from error
    raise DataError(
        "EntityQuestions could not be downloaded:\n" + "\n".join(faults) + "\nGet dataset.zip by "
        "other means and name it with --data or the environment variable SFTKNOW_DATA."
    )


def _fetch(url: str, partial: Path) -> None:
    with partial.open("wb") as handle:
        for chunk in _received(url):
            handle.write(chunk)


def _received(url: str) -> Iterator[bytes]:
    """Yield the body of a response, whole or with an error at its end.

    Raises:
        DataError: the source is down or the body is cut off.
    """
    size = received = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0)
            body: BinaryIO = response
            # Standard output belongs to what was asked for, such as --json.
            console = Console(stderr=True)
            with wrap_file(
                body, size, description="EntityQuestions", console=console, transient=True
            ) as source:
                while chunk := source.read(_CHUNK):
                    received += len(chunk)
                    yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DataError(f"it failed after {received:,} bytes ({error})") from error
    if size and received != size:
        raise DataError(f"it ended after {received:,} of {size:,} bytes")


def _check(archive: Path, url: str, count_facts: Callable[[Path], dict[str, int]]) -> None:
    if (found := FactFiles(archive).digest()) == CONTENT_DIGEST:
        return
    counts = count_facts(archive)
    if counts != FACT_COUNTS:
        raise DataError(
            f"its content digest is {found}, {CONTENT_DIGEST} was expected, and it holds "
            f"{counts} facts where {FACT_COUNTS} were expected"
        )
    logger.warning(
        "The files of %s have the digest %s, not the known %s; the numbers of facts are right, "
        "so they are used.",
        *(url, found, CONTENT_DIGEST),
    )
