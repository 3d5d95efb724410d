"""HTTP whose answers end: a server that sends without end is cut off, and not kept in memory."""

from collections.abc import AsyncIterable, AsyncIterator

import httpx2


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Cuts off an answer of more than `max_bytes`; streams of events are bounded by event."""

    def __init__(self, max_bytes: int) -> None:
        self._inner = httpx2.AsyncHTTPTransport()
        self._max_bytes = max_bytes

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass the request on, and bound what comes back."""
        response = await self._inner.handle_async_request(request)
        kind = response.headers.get("content-type", "").lower()
        if isinstance(response.stream, httpx2.AsyncByteStream) and "event-stream" not in kind:
            response.stream = _Bounded(response.stream, self._max_bytes)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in bounded(self._inner, self._max_bytes):
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


async def bounded(parts: AsyncIterable[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The parts, up to so many bytes.

    Raises:
        httpx2.StreamError: there are more.
    """
    left = max_bytes
    async for part in parts:
        left -= len(part)
        if left < 0:
            raise httpx2.StreamError("the answer is larger than it may be")
        yield part
