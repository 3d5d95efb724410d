"""Who else writes an object: read from its `managedFields`.

Source: Kubernetes "Server-Side Apply", field management. Servers before 1.22 keep no such record of
an object until somebody has applied to it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from interlock_servers.transports.kube.connection import Json


class Writer(NamedTuple):
    """One who has written fields of an object.

    Attributes:
        manager: the name that it gave itself, such as `kubectl-edit`; untrusted text.
        operation: `Apply` or `Update`.
        at: when it last did; None where it is not told.
        subresource: such as `status`; empty for the object itself.
    """

    manager: str
    operation: str
    at: datetime | None
    subresource: str


def writers_of(found: Json, path: Iterable[str]) -> tuple[Writer, ...] | None:
    """Who wrote the field at this path, such as `("spec", "unschedulable")`; newest first.

    Whoever wrote the whole of something above it counts too. None where the object carries no
    record: then nobody knows.
    """
    wanted = tuple(path)
    managed = (found.get("metadata") or {}).get("managedFields")
    if not managed:
        return None
    writers = [
        Writer(
            str(entry.get("manager") or "unknown"),
            str(entry.get("operation") or ""),
            _moment(entry.get("time")),
            str(entry.get("subresource") or ""),
        )
        for entry in (managed if isinstance(managed, list) else ())
        if isinstance(entry, dict) and _holds(entry.get("fieldsV1"), wanted)
    ]
    return tuple(sorted(writers, key=_newest, reverse=True))


def other_writers(found: Json, path: Iterable[str], *, ours: str) -> tuple[Writer, ...] | None:
    """Those of them that are not us; None where nobody knows."""
    writers = writers_of(found, path)
    return None if writers is None else tuple(w for w in writers if w.manager != ours)


def _holds(fields: Any, path: tuple[str, ...]) -> bool:
    at = fields
    for part in path:
        if not isinstance(at, dict) or f"f:{part}" not in at:
            return False
        at = at[f"f:{part}"]
        if at == {}:
            return True  # it holds the whole of it
    return isinstance(at, dict)


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _newest(writer: Writer) -> float:
    return writer.at.timestamp() if writer.at is not None else 0.0
