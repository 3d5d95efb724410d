"""JSON Patch, JSON Merge Patch and strategic merge patch, on plain JSON.

Sources: RFC 6902, RFC 7386, and
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

import copy
from collections.abc import Mapping
from typing import Any

from interlock_servers.transports.kube.embedded.schema import Schema, child, items_of
from interlock_servers.transports.kube.embedded.statuses import ApiError, bad_request


def _rejected() -> ApiError:
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, {})


def json_patch(target: Any, operations: Any) -> Any:
    """The target after the operations, which happen together or not at all.

    Raises:
        ApiError: 400, no list of operations; 422, a `test` failed or a path is not there.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    done = copy.deepcopy(target)
    for operation in operations:
        try:
            done = _step(done, operation)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise _rejected() from None
    return done


def _step(target: Any, operation: Mapping[str, Any]) -> Any:
    kind, path = operation["op"], _pointer(operation["path"])
    if kind == "test":
        if _get(target, path, operation.get("value")) != operation.get("value"):
            raise _rejected()
        return target
    if kind == "remove":
        return _remove(target, path)
    if kind == "replace":
        _get(target, path)
        return _put(_remove(target, path) if path else target, path, operation["value"])
    if kind == "add":
        return _put(target, path, operation["value"])
    source = _pointer(operation["from"])
    value = copy.deepcopy(_get(target, source))
    if kind == "move":
        return _put(_remove(target, source), path, value)
    if kind == "copy":
        return _put(target, path, value)
    raise ValueError(kind)


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(text)
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _get(target: Any, path: list[str], wanted: Any = ...) -> Any:
    for number, part in enumerate(path):
        if isinstance(target, list):
            target = target[_index(part, len(target) - 1)]
        elif part not in target and wanted is None and number == len(path) - 1:
            return None  # the API server lets `test` say that a member is absent
        else:
            target = target[part]
    return target


def _index(part: str, last: int) -> int:
    number = int(part)
    if not 0 <= number <= last:
        raise IndexError(part)
    return number


def _remove(target: Any, path: list[str]) -> Any:
    parent = _get(target, path[:-1])
    del parent[_index(path[-1], len(parent) - 1) if isinstance(parent, list) else path[-1]]
    return target


def _put(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(target, path[:-1])
    if isinstance(parent, list):
        end = len(parent)
        parent.insert(end if path[-1] == "-" else _index(path[-1], end), value)
    else:
        parent[path[-1]] = value
    return target


def merge_patch(target: Any, patch: Any) -> Any:
    """The target after a merge patch: null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    done = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            done.pop(key, None)
        else:
            done[key] = merge_patch(done.get(key), value)
    return done


def strategic_patch(target: Any, patch: Any, schema: Schema) -> Any:
    """The target after a strategic merge patch: lists with a merge key merge by it."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    plain = {key: value for key, value in patch.items() if not key.startswith("$")}
    if directive == "replace":
        return plain
    if directive == "delete":
        return {}
    done = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        done = {key: value for key, value in done.items() if key in patch["$retainKeys"]}
    for key, values in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            done[name] = [each for each in done.get(name) or [] if each not in values]
    for key, value in plain.items():
        if value is None:
            done.pop(key, None)
        elif isinstance(value, list):
            done[key] = _merge_lists(done.get(key) or [], value, child(schema, key))
        else:
            done[key] = strategic_patch(done.get(key), value, child(schema, key))
    return done


def _merge_lists(live: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    keys = schema.get("x-kubernetes-patch-merge-key")
    if keys is None:
        if schema.get("x-kubernetes-list-type") == "set":
            return live + [each for each in patch if each not in live]
        return patch
    replaced = any(isinstance(e, dict) and e.get("$patch") == "replace" for e in patch)
    done = [] if replaced else list(live)
    for each in patch:
        if not isinstance(each, dict):
            raise bad_request("a list that merges by key holds objects")
        directive = each.get("$patch")
        if directive == "replace":
            continue
        if keys not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {keys}")
        place = next((i for i, old in enumerate(done) if old.get(keys) == each[keys]), None)
        if directive == "delete":
            if place is not None:
                del done[place]
        elif place is None:
            done.append(strategic_patch({}, each, items_of(schema)))
        else:
            done[place] = strategic_patch(done[place], each, items_of(schema))
    return done
