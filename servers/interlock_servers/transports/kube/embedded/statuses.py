"""Refusals of an API server: the HTTP status and the Status object that goes with it.

Wording and shape follow kube-apiserver's answers, since clients and people read both.
Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One field that is wrong: `reason` and `message` as the API server words them."""

    field: str
    reason: str
    message: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> "Cause":
        """A field is missing."""
        return cls(field, "FieldValueRequired", f"Required value: {detail}".removesuffix(": "))

    @classmethod
    def invalid(cls, field: str, value: object, detail: str) -> "Cause":
        """A value breaks a rule."""
        shown = f'"{value}"' if isinstance(value, str) else value
        return cls(field, "FieldValueInvalid", f"Invalid value: {shown}: {detail}")

    @classmethod
    def unsupported(cls, field: str, value: object, supported: Sequence[object]) -> "Cause":
        """A value is none of those allowed."""
        shown = ", ".join(f'"{each}"' for each in supported)
        message = f'Unsupported value: "{value}": supported values: {shown}'
        return cls(field, "FieldValueNotSupported", message)

    @classmethod
    def forbidden(cls, field: str, detail: str) -> "Cause":
        """A field may not be set, or not be changed."""
        return cls(field, "FieldValueForbidden", f"Forbidden: {detail}")

    def as_json(self) -> Json:
        """As it stands in a Status."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class ApiError(Exception):
    """A refusal: what is sent is `status`, with the HTTP status `code`."""

    def __init__(
        self, code: int, reason: str, message: str, details: Json | None = None, **metadata: object
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(metadata),
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


def details_of(group: str, kind: str, name: str = "", **more: object) -> Json:
    """The details of a Status; what is empty is left out, as the API server does."""
    named = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in named.items() if value not in ("", None, ())}


def qualified(group: str, plural: str) -> str:
    """A resource as messages name it: `nodes`, `deployments.apps`."""
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """There is no object of this name."""
    message = f'{qualified(group, plural)} "{name}" not found'
    return ApiError(404, "NotFound", message, details_of(group, plural, name))


def no_such_path() -> ApiError:
    """There is no such resource."""
    message = "the server could not find the requested resource"
    return ApiError(404, "NotFound", message, {})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """The name is taken."""
    message = f'{qualified(group, plural)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details_of(group, plural, name))


def conflict(group: str, plural: str, name: str, detail: str = "") -> ApiError:
    """The object is not the one that the caller had read."""
    why = detail or (
        "the object has been modified; please apply your changes to the latest version and try "
        "again"
    )
    message = f'Operation cannot be fulfilled on {qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details_of(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """The object breaks these rules."""
    said = [f"{cause.field}: {cause.message}" for cause in causes]
    shown = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    message = f'{qualified(group, kind)} "{name}" is invalid: {shown}'
    details = details_of(group, kind, name, causes=[cause.as_json() for cause in causes])
    return ApiError(422, "Invalid", message, details)


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """The caller may not do this."""
    named = qualified(group, plural) + (f' "{name}"' if name else "")
    message = f"{named} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, details_of(group, plural, name))


def bad_request(message: str) -> ApiError:
    """The request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def method_not_allowed() -> ApiError:
    """The resource is there, and this is not done to it."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def expired(message: str, **metadata: object) -> ApiError:
    """The state asked for is forgotten."""
    return ApiError(410, "Expired", message, None, **metadata)


def unsupported_media(accepted: Sequence[str]) -> ApiError:
    """The body is in a format that is not taken here."""
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)
