"""One format for everything we measure or prove, so that people and CI read the same figures.

```text
{"name", "commit", "when", "machine", "versions",
 "figures":  {key: {"value", "unit", "n", "spread"}},
 "promises": {key: {"value", "limit", "unit", "held", "why_not"}}}
```

A promise that does not hold stays in the report with its reason.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path

from interlock_tools.clock import SystemClock

FOLDER = Path("reports")
VERSIONS_OF = ("interlock-dsx", "numpy")


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Attributes:
        value: the median, where it was measured more than once.
        unit: of value and spread; "" for a ratio or a count.
        n: how often it was measured.
        spread: largest less smallest; None where it was measured once.
    """

    value: float
    unit: str
    n: int = 1
    spread: float | None = None


@dataclass(frozen=True)
class Promise:
    """A value against its limit; build it with `at_most` or `at_least`.

    `value` is None where it could not be measured; the promise does not hold then.
    """

    value: float | str | None
    limit: float | str
    unit: str
    held: bool
    why_not: str | None = None

    @classmethod
    def at_most(
        cls, value: float, limit: float, unit: str, why_not: str | None = None
    ) -> "Promise":
        """Holds up to the limit; `why_not` is kept only where it does not."""
        held = bool(value <= limit)  # false for NaN
        return cls(float(value), limit, unit, held, None if held else why_not or "above the limit")

    @classmethod
    def at_least(
        cls, value: float, limit: float, unit: str, why_not: str | None = None
    ) -> "Promise":
        """Holds from the limit up; `why_not` is kept only where it does not."""
        held = bool(value >= limit)
        return cls(float(value), limit, unit, held, None if held else why_not or "below the limit")

    @classmethod
    def unmeasured(cls, limit: float, unit: str, why_not: str) -> "Promise":
        """Does not hold, because it could not be measured."""
        return cls(None, limit, unit, held=False, why_not=why_not)


@dataclass(frozen=True)
class Report:
    """What one run found, with where, when and on what."""

    name: str
    commit: str
    when: datetime
    machine: str
    versions: Mapping[str, str]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    promises: Mapping[str, Promise] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        figures: Mapping[str, Figure],
        promises: Mapping[str, Promise],
        versions_of: Sequence[str] = VERSIONS_OF,
    ) -> "Report":
        """A report of this run: commit, moment, machine and versions are filled in."""
        when = SystemClock().now()
        return cls(name, commit(), when, machine(), versions(versions_of), figures, promises)

    def as_json(self) -> str:
        """The report in the format of this module."""
        content = asdict(self) | {"when": self.when.isoformat(timespec="seconds")}
        return json.dumps(content, indent=2, default=float) + "\n"

    def write(self, folder: Path = FOLDER) -> Path:
        """Write `<folder>/<name>.json` and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(self.as_json(), encoding="utf-8")
        return path


def commit() -> str:
    """The commit of the checkout, with `+changes` where files differ from it; else "unknown"."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent

    def ask(*words: str) -> str | None:
        answer = subprocess.run(  # noqa: S603 - fixed words, no input of anybody's
            [git, "--no-optional-locks", *words],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    head = ask("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    return f"{head}+changes" if ask("status", "--porcelain") else head


def machine() -> str:
    """The machine in words: processor, cores that this process may use, system."""
    model = platform.processor() or platform.machine()
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        lines = listed.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()} {platform.machine()}"


def versions(packages: Sequence[str] = VERSIONS_OF) -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    out = {"python": platform.python_version()}
    for package in packages:
        try:
            out[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return out
