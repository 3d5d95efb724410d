"""Paging: who is told when a change ends where only a person can go on."""

import logging
from typing import Protocol

from interlock_tools.change import Change

log = logging.getLogger(__name__)


class Pager(Protocol):
    """Calls a person. It must not raise and must not block for long."""

    def page(self, change: Change, why: str) -> None:
        """Tell a person about this change."""
        ...


class LogPager:
    """Says it at the level that every log system alerts on."""

    def page(self, change: Change, why: str) -> None:
        """One critical line."""
        log.critical(
            "a person must look at a change",
            extra={"change_id": change.change_id, "operation": change.operation, "why": why},
        )
