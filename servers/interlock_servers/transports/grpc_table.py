"""Protobuf descriptors from a table of names and numbers; nothing is compiled or generated.

A line of the table is `Message: name=number type, ...`. Before a type `*` is a list, `?` may be
absent, `a/` stands within oneof `a`, and `map/` is a map from strings to messages. Enumerations are
given apart, by name with their words, the first of which is 0.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import duration_pb2, empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool

Rpc = tuple[str, str, str]  # method, request, response; `>` before the response means a stream

_SCALARS: Final = {
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "string": FieldDescriptorProto.TYPE_STRING,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
}
_GOOGLE: Final = {"Struct", "Timestamp", "Empty", "Duration"}
_GOOGLE_FILES: Final = (struct_pb2, timestamp_pb2, empty_pb2, duration_pb2)
NO_ENUMS: Final[Mapping[str, Sequence[str]]] = {}


def rows(table: str) -> dict[str, list[str]]:
    """The fields of each message of a table, as they stand there."""
    found = {}
    for line in filter(None, table.splitlines()):
        name, _, fields = line.partition(": ")
        found[name.rstrip(":")] = list(filter(None, fields.split(", ")))
    return found


def pool_of_table(
    file_name: str,
    package: str,
    messages: Mapping[str, Sequence[str]],
    services: Mapping[str, Sequence[Rpc]],
    enums: Mapping[str, Sequence[str]] = NO_ENUMS,
) -> DescriptorPool:
    """A pool of its own with one file, so that its messages never meet another's."""
    file = FileDescriptorProto(name=file_name, package=package, syntax="proto3")
    for google in _GOOGLE_FILES:
        file.dependency.append(google.DESCRIPTOR.name)
    for name, words in enums.items():
        enum = file.enum_type.add(name=name)
        for number, word in enumerate(words):
            enum.value.add(name=word, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(package, message, field, enums)
        _add_absence(message)
    for service_name, methods in services.items():
        service = file.service.add(name=service_name)
        for method, request, response in methods:
            service.method.add(
                name=method,
                input_type=_full(package, request),
                output_type=_full(package, response.removeprefix(">")),
                server_streaming=response.startswith(">"),
            )
    pool = DescriptorPool()
    for google in _GOOGLE_FILES:
        pool.AddSerializedFile(google.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _full(package: str, message: str) -> str:
    return f".google.protobuf.{message}" if message in _GOOGLE else f".{package}.{message}"


def _add_field(
    package: str, message: DescriptorProto, text: str, enums: Mapping[str, Sequence[str]]
) -> None:
    """One `name=number type` of the table."""
    name, _, rest = text.partition("=")
    number, _, kind = rest.partition(" ")
    group, slash, inner = kind.rpartition("/")
    inner = inner.lstrip("*?")
    field = message.field.add(
        name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    if inner in _SCALARS:
        field.type = _SCALARS[inner]
    else:
        is_enum = inner in enums
        kind_of = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
        field.type, field.type_name = kind_of, _full(package, inner)
    if group == "map":
        _make_map(package, message, field)
    elif slash:
        field.oneof_index = _oneof(message, group)
    elif kind.startswith("*"):
        field.label = FieldDescriptorProto.LABEL_REPEATED
    elif kind.startswith("?"):
        field.proto3_optional = True


def _make_map(package: str, message: DescriptorProto, field: FieldDescriptorProto) -> None:
    """A map is a list of entries on the wire."""
    entry = message.nested_type.add(name=f"{field.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    key = entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL)
    key.type = FieldDescriptorProto.TYPE_STRING
    value = entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
    value.type, value.type_name = FieldDescriptorProto.TYPE_MESSAGE, field.type_name
    field.label = FieldDescriptorProto.LABEL_REPEATED
    field.type_name = f".{package}.{message.name}.{entry.name}"


def _oneof(message: DescriptorProto, name: str) -> int:
    names = [oneof.name for oneof in message.oneof_decl]
    if name not in names:
        message.oneof_decl.add(name=name)
        return len(names)
    return names.index(name)


def _add_absence(message: DescriptorProto) -> None:
    """A proto3 field that may be absent sits in a oneof of its own, after the real ones."""
    for field in message.field:
        if field.proto3_optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
