"""How every command begins and ends: settings, one console, one sentence for a failure."""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from interlock_console.settings import DEFAULT_FILE, InterlockSettings, load
from interlock_tools.errors import FactoryError

PIPED_WIDTH = 120  # where there is no terminal to ask
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
trouble = Console(stderr=True, highlight=False)

Config = Annotated[Path, typer.Option("--config", help="the settings file")]
ChangeId = Annotated[str, typer.Argument(help="such as chg-0123456789ab")]
Why = Annotated[str, typer.Option("--why", help="for the ledger")]

__all__ = ["DEFAULT_FILE", "ChangeId", "Config", "Why", "console", "fail", "run", "settings_in"]


def settings_in(config: Path) -> InterlockSettings:
    """The settings in this file; ends the process where they are not usable."""
    try:
        return load(config)
    except FactoryError as error:
        fail(str(error))


def run(
    work: Coroutine[Any, Any, int], around: AbstractContextManager[object] | None = None
) -> NoReturn:
    """Run to the end and leave with its exit status; an expected failure is one sentence and 2.

    `around` is entered before and left after it, such as what exports telemetry.
    """
    try:
        with around or nullcontext():
            status = asyncio.run(work)
    except KeyboardInterrupt:
        status = 130
    except FactoryError as error:
        fail(str(error))
    except BaseExceptionGroup as group:
        expected, rest = group.split(FactoryError)
        if expected is None or rest is not None:
            raise
        fail("; ".join(dict.fromkeys(_sentences(expected))))
    finally:
        work.close()  # where it never began
    sys.exit(status)


def fail(sentence: str) -> NoReturn:
    """Say what failed and leave with exit status 2."""
    trouble.print(f"interlock: {sentence}", markup=False, soft_wrap=True)
    sys.exit(2)


def _sentences(group: BaseExceptionGroup[FactoryError]) -> list[str]:
    out: list[str] = []
    for error in group.exceptions:
        out += _sentences(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return out
