"""Lists in pages of one moment, and watches from a version on.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
from starlette.datastructures import QueryParams

from interlock_servers.transports.kube.embedded.requests import list_option
from interlock_servers.transports.kube.embedded.resources import Resource
from interlock_servers.transports.kube.embedded.selectors import field_selector, label_selector
from interlock_servers.transports.kube.embedded.statuses import ApiError, bad_request, expired
from interlock_servers.transports.kube.embedded.store import (
    Change,
    Entry,
    Key,
    Store,
    Table,
    decode,
)

Test = Callable[[Entry], bool]
BOOKMARK_EVERY_S: Final = 60.0
BOOKMARK_BEFORE_END_S: Final = 2.0
WATCH_LASTS_S: Final = 1800.0  # where the caller says nothing
_TOO_OLD: Final = "The resourceVersion for the provided list is too old."
_PAGE_TOO_OLD: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True)
class Wanted:
    """Which objects, at which version, how many of them."""

    test: Test | None
    version: int | None  # None: any
    exact: bool
    limit: int
    token: str


def wanted(resource: Resource, query: QueryParams) -> Wanted:
    """What the options of a list or a watch ask for.

    Raises:
        ApiError: 400, 422 or 500, as the API server refuses options.
    """
    labels = label_selector(query.get("labelSelector", ""))
    fields = field_selector(query.get("fieldSelector", ""), resource.fields)
    limit, match = _integer(query.get("limit") or "0"), query.get("resourceVersionMatch", "")
    text, token = query.get("resourceVersion", ""), query.get("continue", "")
    if text and not text.isdigit():
        detail = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError(500, "", f'resourceVersion: Invalid value: "{text}": {detail}')
    if match and not text:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise list_option("resourceVersionMatch", why)
    if match == "Exact" and text == "0":
        why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise list_option("resourceVersionMatch", why)
    version = int(text) if text not in ("", "0") else None
    return Wanted(
        test=_both(labels, fields),
        version=version,
        exact=match == "Exact" or (limit > 0 and version is not None and not match),
        limit=limit,
        token=token,
    )


def _both(
    labels: Callable[[Any], bool] | None, fields: Callable[[Any], bool] | None
) -> Test | None:
    if labels is None and fields is None:
        return None
    return lambda entry: (
        (labels is None or labels(entry.labels)) and (fields is None or fields(entry.fields))
    )


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def listed(store: Store, resource: Resource, namespace: str | None, asked: Wanted) -> bytes:
    """A list, or one page of it, as JSON.

    Raises:
        ApiError: 410, the version or the page is forgotten; 504, the version is yet to come.
    """
    table = store.table(resource.key)
    version, after = store.version, None
    if asked.token:
        version, after = _read_token(asked.token)
        if version < 0:
            version = store.version
        elif version < table.forgotten:
            raise expired(_PAGE_TOO_OLD, **{"continue": _token(-1, after)})
    elif asked.version is not None:
        check_not_ahead(store, asked.version)
        if asked.exact:
            version = asked.version
            if version < table.forgotten:
                raise expired(_TOO_OLD)
    keys, find = table.at(version, namespace)
    start = _after(keys, after)
    page: list[bytes] = []
    end = len(keys)
    more: Key | None = None
    for number in range(start, len(keys)):
        entry = find(keys[number])
        if asked.test is None or asked.test(entry):
            if asked.limit and len(page) == asked.limit:
                end, more = number, keys[number - 1]
                break
            page.append(_item(resource, entry))
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if more is not None:
        metadata["continue"] = _token(version, more)
        if asked.test is None:
            metadata["remainingItemCount"] = len(keys) - end
    kind = resource.list_kind or f"{resource.kind}List"
    head = f'{{"kind":"{kind}","apiVersion":"{resource.api_version}","metadata":'
    return b"".join(
        (head.encode(), json.dumps(metadata).encode(), b',"items":[', b",".join(page), b"]}\n")
    )


def _item(resource: Resource, entry: Entry) -> bytes:
    """Items of built-in kinds do not repeat their kind, custom ones do."""
    return (resource.prefix if resource.custom else b"{") + entry.body


def check_not_ahead(store: Store, version: int) -> None:
    """Refuse a version that is yet to come.

    Raises:
        ApiError: 504, to be tried again.
    """
    if version > store.version:
        said = "Too large resource version"
        cause = {"reason": "ResourceVersionTooLarge", "message": said}
        message = f"Timeout: {said}: {version}, current: {store.version}"
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def _token(version: int, after: Key) -> str:
    written = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": "/".join(after)})
    return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        read = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = read["start"].partition("/")
        return int(read["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise bad_request("invalid continue token: continue key is not valid") from None


def _after(keys: list[Key], key: Key | None) -> int:
    if key is None:
        return 0
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] <= key:
            low = middle + 1
        else:
            high = middle
    return low


@dataclass
class Watch:
    """One watch; what it yields are whole lines of JSON."""

    store: Store
    resource: Resource
    namespace: str | None
    asked: Wanted
    bookmarks: bool
    lasts_s: float
    closing: anyio.Event

    async def stream(self) -> AsyncIterator[bytes]:
        """The events, until the time is over, the server closes, or the past is forgotten."""
        table, now = self.store.table(self.resource.key), anyio.current_time()
        end_s, position = now + self.lasts_s, table.dropped + len(table.log)
        version = self.store.version
        told_s = min(now + BOOKMARK_EVERY_S, max(now, end_s - BOOKMARK_BEFORE_END_S))
        if self.asked.version is None:
            test = self.asked.test
            first = [e for e in table.within(self.namespace) if test is None or test(e)]
            yield b"".join(self._event(b"ADDED", entry) for entry in first)
        elif self.asked.version < table.forgotten:
            yield _gone(self.asked.version, table.forgotten)
            return
        else:
            position, version = table.position_after(self.asked.version), self.asked.version
        while not self.closing.is_set():
            changed = table.changed
            if position < table.dropped:
                yield _gone(version, table.forgotten)
                return
            news = table.log[position - table.dropped :]
            position += len(news)
            if lines := b"".join(self._line(table, change) for change in news):
                yield lines
            version = max(version, self.store.version)
            if anyio.current_time() >= end_s:
                return
            if self.bookmarks and anyio.current_time() >= told_s:
                told_s = anyio.current_time() + BOOKMARK_EVERY_S
                yield self._bookmark(version)
            with anyio.move_on_after(self._wait_s(end_s, told_s)):
                await changed.wait()

    def _wait_s(self, end_s: float, told_s: float) -> float:
        until_s = min(end_s, told_s) if self.bookmarks else end_s
        return max(0.0, until_s - anyio.current_time())

    def _line(self, _: Table, change: Change) -> bytes:
        entry, previous = change.entry, change.previous
        if self.namespace is not None and entry.key[0] != self.namespace:
            return b""
        test = self.asked.test
        was = previous is not None and (test is None or test(previous))
        if change.deleted:
            return self._event(b"DELETED", entry) if was else b""
        if test is None or test(entry):
            return self._event(b"MODIFIED" if was else b"ADDED", entry)
        if not was or previous is None:
            return b""
        value = decode(self.resource.prefix, previous)  # as it was when it still matched
        value["metadata"]["resourceVersion"] = str(change.version)
        return b'{"type":"DELETED","object":' + json.dumps(value).encode() + b"}\n"

    def _event(self, kind: bytes, entry: Entry) -> bytes:
        return b'{"type":"%b","object":%b%b}\n' % (kind, self.resource.prefix, entry.body)

    def _bookmark(self, version: int) -> bytes:
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        rest = json.dumps({"metadata": metadata})[1:].encode()
        return b'{"type":"BOOKMARK","object":%b%b}\n' % (self.resource.prefix, rest)


def _gone(version: int, oldest: int) -> bytes:
    status = expired(f"too old resource version: {version} ({oldest})").status
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
