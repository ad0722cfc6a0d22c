"""What pydantic finds wrong, in one line a fault."""

from __future__ import annotations

from pydantic import ValidationError

_SHOWN = 10


def faults_of(error: ValidationError, name: str) -> str:
    """Return the first faults of a file, each with its place; `name` is what the file is called.

    Values are not repeated: they are a stranger's, and may be long.
    """
    faults = [
        f"{'.'.join(map(str, fault['loc']))[:120] or 'file'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return f"{name}: {'; '.join(faults[:_SHOWN])}{more}."
