"""The caps that a node agent holds, each with its end and its safe value; kept over a restart.

A cap is written down before it is set. What was written down and never set ends at its safe value,
which is harmless; what was set and never written down would stay for ever.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from interlock_servers.devices.node_models import CapState, HeldCap
from interlock_tools.errors import InvalidRequestError

FORMAT: Final = "interlock.held-caps/1"
CLOCK_SLACK_S = 5.0  # a machine's clock may be set back by so much without ending every cap


@dataclass(frozen=True, slots=True)
class Lease:
    """One cap. Its end is a moment, so that it survives a restart.

    Attributes:
        renewed_at: when it was set or last renewed.
    """

    key: str
    limit_w: float
    safe_w: float
    renewed_at: datetime
    expires_at: datetime
    controller_id: str
    change_id: str
    state: CapState = CapState.HELD

    def is_over(self, now: datetime) -> bool:
        """Whether its end has come.

        A clock that was set back to before it was renewed tells no more when that is: then it has.
        """
        was_set_back = now < self.renewed_at - timedelta(seconds=CLOCK_SLACK_S)
        return now >= self.expires_at or was_set_back

    def held(self, now: datetime) -> HeldCap:
        """As it is told to others."""
        return HeldCap(
            key=self.key,
            limit_w=self.limit_w,
            safe_w=self.safe_w,
            left_s=max(0.0, (self.expires_at - now).total_seconds()),
            state=CapState.OVERDUE if self.is_over(now) else self.state,
            controller_id=self.controller_id,
            change_id=self.change_id,
        )


class LeaseBook:
    """The caps by GPU, in a file that is whole at every moment."""

    def __init__(self, file: Path) -> None:
        """Read what was held before.

        Raises:
            InvalidRequestError: the file is there and cannot be read. What it held is then not
                known, so nothing may be set until a person has looked.
        """
        self._file = file
        self._leases = _read(file)

    def all(self) -> tuple[Lease, ...]:
        """Every cap that is held."""
        return tuple(self._leases.values())

    def of(self, key: str) -> Lease | None:
        """The cap of one GPU."""
        return self._leases.get(key)

    def put(self, leases: Iterable[Lease]) -> None:
        """Hold these, in the place of others on the same GPUs; on disk when it returns.

        Raises:
            OSError: it could not be written; nothing is held that was not before.
        """
        self._write({**self._leases, **{lease.key: lease for lease in leases}})

    def drop(self, keys: Iterable[str]) -> None:
        """Hold these no more.

        Raises:
            OSError: it could not be written; they are still held.
        """
        gone = set(keys)
        self._write({key: each for key, each in self._leases.items() if key not in gone})

    def mark(self, key: str, state: CapState) -> None:
        """Note how a cap stands; that alone is not worth a disk."""
        if key in self._leases:
            self._leases[key] = replace(self._leases[key], state=state)

    def over(self, now: datetime) -> tuple[Lease, ...]:
        """The caps whose end has come."""
        return tuple(lease for lease in self._leases.values() if lease.is_over(now))

    def _write(self, leases: dict[str, Lease]) -> None:
        document = {"format": FORMAT, "held": [_as_json(lease) for lease in leases.values()]}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_name(self._file.name + ".new")
        with beside.open("w", encoding="utf-8") as out:
            json.dump(document, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(self._file)
        folder = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._leases = leases


def _as_json(lease: Lease) -> dict[str, Any]:
    moments = {name: getattr(lease, name).isoformat() for name in ("renewed_at", "expires_at")}
    return {**asdict(lease), **moments, "state": lease.state.value}


def _read(file: Path) -> dict[str, Lease]:
    try:
        document = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unusable(file, str(error)) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _unusable(file, f"it is not of the format {FORMAT}")
    try:
        leases = [_lease(each) for each in document["held"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(file, repr(error)) from None
    return {lease.key: lease for lease in leases}


def _lease(said: Mapping[str, Any]) -> Lease:
    moments = {name: datetime.fromisoformat(said[name]) for name in ("renewed_at", "expires_at")}
    if any(moment.utcoffset() is None for moment in moments.values()):
        raise ValueError("a moment without a zone")
    if not all(math.isfinite(said[name]) for name in ("limit_w", "safe_w")):
        raise ValueError("watts that are no number")
    return Lease(**{**said, **moments, "state": CapState(said["state"])})


def _unusable(file: Path, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{file} says which caps this agent holds and cannot be read ({why}); look at the limits "
        "of the GPUs, then move the file away"
    )
