"""Names, labels, finalizers and owners: what every object's metadata must keep to."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from interlock_servers.transports.kube.embedded.statuses import Cause

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_KEY: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = f"({_KEY})?"
_SUBDOMAIN_SAYS: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    f"for validation is '{_SUBDOMAIN}')"
)
_LABEL_SAYS: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    f"for validation is '{_LABEL}')"
)
_KEY_SAYS: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    f"validation is '{_KEY}')"
)
_VALUE_SAYS: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    f"or '12345', regex used for validation is '{_VALUE}')"
)
_PATH_NAMES: Final = {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
_LABEL_NAMES: Final = {"Namespace"}


def check_metadata(metadata: Mapping[str, Any], kind: str) -> Iterator[Cause]:
    """What is wrong with an object's metadata."""
    name = metadata.get("name") or ""
    if not name:
        yield Cause.required("metadata.name", "name or generateName is required")
    else:
        yield from check_name(name, kind)
    yield from check_labels(metadata.get("labels"), "metadata.labels")
    for key in metadata.get("annotations") or {}:
        if not _qualified(key.lower()):
            yield Cause.invalid("metadata.annotations", key, _KEY_SAYS)
    for each in metadata.get("finalizers") or ():
        if not _qualified(each):
            yield Cause.invalid("metadata.finalizers", each, _KEY_SAYS)
        elif "/" not in each and each not in ("orphan", "foregroundDeletion", "kubernetes"):
            says = "name is neither a standard finalizer name nor is it fully qualified"
            yield Cause.invalid("metadata.finalizers", each, says)
    for owner in metadata.get("ownerReferences") or ():
        for field, what in (
            ("apiVersion", "version"),
            ("kind", "kind"),
            ("name", "name"),
            ("uid", "uid"),
        ):
            if not owner.get(field):
                where = f"metadata.ownerReferences.{field}"
                yield Cause.invalid(where, "", f"{what} must not be empty")


def check_name(name: str, kind: str, where: str = "metadata.name") -> Iterator[Cause]:
    """What is wrong with a name of this kind of object."""
    if kind in _PATH_NAMES:
        if name in (".", "..") or "/" in name or "%" in name:
            yield Cause.invalid(where, name, "may not be '.' or '..', nor contain '/' or '%'")
        return
    if kind in _LABEL_NAMES:
        yield from check_label_name(name, where)
        return
    if re.fullmatch(_SUBDOMAIN, name) is None:
        yield Cause.invalid(where, name, _SUBDOMAIN_SAYS)
    if len(name) > 253:
        yield Cause.invalid(where, name, "must be no more than 253 characters")


def check_label_name(name: str, where: str) -> Iterator[Cause]:
    """What is wrong with a name that must fit a DNS label."""
    if re.fullmatch(_LABEL, name) is None:
        yield Cause.invalid(where, name, _LABEL_SAYS)
    if len(name) > 63:
        yield Cause.invalid(where, name, "must be no more than 63 characters")


def check_labels(labels: Mapping[str, str] | None, where: str) -> Iterator[Cause]:
    """What is wrong with labels."""
    for key, value in (labels or {}).items():
        if not _qualified(key):
            yield Cause.invalid(where, key, _KEY_SAYS)
        if re.fullmatch(_VALUE, value) is None:
            yield Cause.invalid(where, value, _VALUE_SAYS)
        if len(value) > 63:
            yield Cause.invalid(where, value, "must be no more than 63 characters")


def _qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (re.fullmatch(_SUBDOMAIN, prefix) is None or len(prefix) > 253):
        return False
    return re.fullmatch(_KEY, name) is not None and len(name) <= 63
