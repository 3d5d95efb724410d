"""A part of a measure in a process of its own, so that what it uses is not counted.

It speaks lines of JSON, and ends when its input closes.
"""

import json
import subprocess
import sys
from typing import IO, Any


class OtherProcess:
    """One that runs `python -m module arguments`."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def told(self) -> Any:
        """What it says next."""
        line = _pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError("a process of the measure ended early")
        return json.loads(line)

    def ask(self, command: str) -> Any:
        """Its answer."""
        pipe = _pipe(self._process.stdin)
        pipe.write(command + "\n")
        pipe.flush()
        return self.told()

    def end(self) -> None:
        """Close its input, and wait."""
        self._process.communicate()


def say(what: object) -> None:
    """What the other side is `told`, in such a process."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _pipe(found: IO[str] | None) -> IO[str]:
    if found is None:
        raise RuntimeError("a process without pipes")
    return found
