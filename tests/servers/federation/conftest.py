"""The other server, and a site that has it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.federation.elsewhere import Elsewhere, Met, meeting


@pytest.fixture
def other(tmp_path: Path) -> Elsewhere:
    """The other server's folder; it is honest."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Elsewhere(folder)


@pytest.fixture
async def met(tmp_path: Path, other: Elsewhere) -> AsyncIterator[Met]:
    """A site with it, whose list nobody has approved yet."""
    async with meeting(tmp_path, other, other.settings()) as opened:
        yield opened


@pytest.fixture
async def approved(met: Met) -> Met:
    """The same after a site lead said yes."""
    await met.approve_list()
    return met
