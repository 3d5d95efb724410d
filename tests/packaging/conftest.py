"""The event loop of a cluster lives as long as the cluster."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio; the Kubernetes client runs on no other loop."""
    return "asyncio"
