"""What a request asks for: its path, its verb and its options, understood once."""

import json
from dataclasses import dataclass
from typing import Any, Final

import yaml
from starlette.datastructures import QueryParams
from starlette.requests import Request

from interlock_servers.transports.kube.embedded.statuses import (
    ApiError,
    Cause,
    bad_request,
    invalid,
    unsupported_media,
)

Json = dict[str, Any]
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
_META: Final = "meta.k8s.io"


@dataclass(frozen=True)
class Asked:
    """The parts of a path; empty where they do not occur."""

    group: str = ""
    version: str = ""
    namespace: str = ""
    plural: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str) -> Asked | None:
    """The resource that a path names; None where it names none."""
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and not (
            group == "" and len(rest) == 3 and rest[2] in ("status", "finalize")
        ):
            rest = rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    return Asked(
        group, version, namespace, plural, name, "/".join((subresource, *rest[3:])).rstrip("/")
    )


def verb_of(method: str, asked: Asked, query: QueryParams) -> str:
    """The verb that RBAC is asked about."""
    if method in ("GET", "HEAD"):
        if query.get("watch") in ("1", "true") and not asked.subresource:
            return "get" if asked.name else "watch"
        return "get" if asked.name else "list"
    if method == "DELETE":
        return "delete" if asked.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, method.lower())


def name_of(asked: Asked, query: QueryParams) -> str:
    """The name that RBAC is asked about: a collection narrowed to one name is about that one."""
    if asked.name:
        return asked.name
    names = [
        part.partition("=")[2].lstrip("=").strip()
        for part in query.get("fieldSelector", "").split(",")
        if part.strip().startswith("metadata.name=")
    ]
    return names[0] if len(names) == 1 else ""


@dataclass(frozen=True)
class WriteOptions:
    """How a write is to be done."""

    manager: str
    dry_run: bool = False
    force: bool = False


def write_options(request: Request, kind: str) -> WriteOptions:
    """The options of a create, an update or a patch.

    Raises:
        ApiError: 422, an option is not what it may be.
    """
    query = request.query_params
    media = media_type(request)
    if kind == "PatchOptions":
        if media != APPLY_PATCH and "force" in query:
            raise _option(
                kind, Cause.forbidden("force", "may not be specified for non-apply patch")
            )
        if media == APPLY_PATCH and not query.get("fieldManager"):
            raise _option(kind, Cause.required("fieldManager", "is required for apply patch"))
    agent = request.headers.get("user-agent", "").partition("/")[0]
    return WriteOptions(
        manager=query.get("fieldManager") or agent or "unknown",
        dry_run=dry_run(query.getlist("dryRun"), kind),
        force=query.get("force") in ("1", "true"),
    )


def dry_run(given: list[str], kind: str) -> bool:
    """Whether nothing is to be kept.

    Raises:
        ApiError: 422, it is neither `All` nor left out.
    """
    wanted = [each for each in given if each]
    if any(each != "All" for each in wanted):
        listed = ", ".join(f'"{each}"' for each in wanted)
        supported = f'Unsupported value: []string{{{listed}}}: supported values: "All"'
        raise _option(kind, Cause("dryRun", "FieldValueNotSupported", supported))
    return bool(wanted)


def _option(kind: str, cause: Cause) -> ApiError:
    return invalid(_META, kind, "", [cause])


def list_option(field: str, why: str) -> ApiError:
    """A list option that may not be set like this."""
    return _option("ListOptions", Cause.forbidden(field, why))


def media_type(request: Request) -> str:
    """The type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, *, empty: bool = False) -> Any:
    """The body of a create, an update or a delete.

    Raises:
        ApiError: 415, no JSON or YAML; 400, it cannot be read.
    """
    raw = await request.body()
    if empty and not raw.strip():
        return {}
    media = media_type(request)
    if media not in ("", "application/json", "application/yaml"):
        raise unsupported_media(
            ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
        )
    return parse(raw, yaml_too=media == "application/yaml")


def parse(raw: bytes, *, yaml_too: bool = False) -> Any:
    """JSON, or YAML where that is said.

    Raises:
        ApiError: 400, it is neither.
    """
    try:
        return json.loads(raw)
    except ValueError as error:
        if yaml_too:
            try:
                return json.loads(json.dumps(yaml.safe_load(raw), default=str))
            except (yaml.YAMLError, ValueError, TypeError) as wrong:
                raise bad_request(f"error decoding YAML: {wrong}") from None
        raise bad_request(
            f"the object provided is unrecognized: json parse error: {error}"
        ) from None
