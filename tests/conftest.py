"""What every test shares: the event loop that gRPC and MQTT need."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio; the transports run on no other loop."""
    return "asyncio"
