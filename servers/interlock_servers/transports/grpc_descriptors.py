"""What a gRPC server says of its messages, against what a client needs of them; no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool

_KINDS = {
    "bool": {FieldDescriptor.TYPE_BOOL},
    "text": {FieldDescriptor.TYPE_STRING},
    "bytes": {FieldDescriptor.TYPE_BYTES},
    "enum": {FieldDescriptor.TYPE_ENUM},
    "number": {
        FieldDescriptor.TYPE_DOUBLE,
        FieldDescriptor.TYPE_FLOAT,
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    },
}
_KNOWN_MESSAGES = {
    "struct": "google.protobuf.Struct",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
}


@dataclass(frozen=True)
class MethodNeed:
    """One method that a client calls, and the fields that it cannot do without.

    A field is a path of names: `[]` after a name means a list, `{}` a map, `?` that it must be able
    to say that it is absent. The last name ends in its kind: `bool`, `text`, `number`, `enum`,
    `bytes`, `struct`, `timestamp` or `duration`, as in `results[].set_limit:number`.

    Attributes:
        path: `/package.Service/Method`.
        is_read: only a read is ever sent twice.
        streams: whether the server answers with a stream.
    """

    path: str
    is_read: bool
    request: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    streams: bool = False

    @property
    def service(self) -> str:
        """Full name of its service."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """Its name within the service."""
        return self.path.split("/")[2]


def add_well_known(files: dict[str, FileDescriptorProto], name: str) -> bool:
    """Google's own files are the same everywhere; some servers do not hand them out."""
    if not name.startswith("google/protobuf/"):
        return False
    try:
        found = Default().FindFileByName(name)
    except KeyError:
        return False
    files[name] = FileDescriptorProto.FromString(found.serialized_pb)
    return True


def pool_of(files: Mapping[str, FileDescriptorProto]) -> DescriptorPool:
    """A pool of its own, so that a server's messages never meet another's.

    Raises:
        ValueError: the files do not fit together.
    """
    pool, added = DescriptorPool(), set[str]()

    def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        for dependency in files[name].dependency:
            add(dependency)
        pool.AddSerializedFile(files[name].SerializeToString())

    try:
        for name in files:
            add(name)
    except (KeyError, TypeError) as error:
        raise ValueError(f"descriptors do not fit together: {error}") from error
    return pool


def why_absent(message: Descriptor, path: str) -> str | None:
    """What is not there of a field path, or None where all of it is."""
    names, _, kind = path.partition(":")
    inside: Descriptor | None = message
    where = message.full_name
    for step in names.split("."):
        name = step.rstrip("[]{}?")
        if inside is None or name not in inside.fields_by_name:
            return f"field {where}.{name}"
        field = inside.fields_by_name[name]
        where, inside = field.full_name, field.message_type
        is_map = inside is not None and inside.GetOptions().map_entry
        form = "a map" if is_map else "a list" if field.is_repeated else "one"
        wanted = "a map" if step.endswith("{}") else "a list" if step.endswith("[]") else "one"
        if form != wanted:
            return f"field {where} as {wanted}"
        if step.endswith("?") and not field.has_presence:
            return f"field {where} that can be absent"
        if is_map and inside is not None:
            field = inside.fields_by_name["value"]
            inside = field.message_type
    if not kind:
        return None
    if kind in _KNOWN_MESSAGES:
        fits = inside is not None and inside.full_name == _KNOWN_MESSAGES[kind]
    else:
        fits = field.type in _KINDS[kind]
    return None if fits else f"field {where} as {kind}"
