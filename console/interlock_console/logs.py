"""Logs: a constant sentence plus key-values, to stderr alone, so that stdout stays a protocol."""

import logging
import sys

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """`time level logger: sentence key=value ...`; values are quoted and cut."""

    MAX_VALUE_CHARS = 200

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it where there is one."""
        line = super().format(record)
        pairs = [
            f"{key}={str(value)[: self.MAX_VALUE_CHARS]!r}"
            for key, value in record.__dict__.items()
            if key not in _STANDARD
        ]
        head, *rest = line.split("\n")
        return "\n".join([" ".join([head, *pairs]), *rest])


def set_up(level: int = logging.WARNING) -> None:
    """Send everything of this level and above to stderr; later set-ups by libraries do nothing."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
