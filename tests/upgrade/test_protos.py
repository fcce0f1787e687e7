"""The contracts of gRPC only grow: what the release before this one reads and writes is there, unchanged."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from upgrade.release import ROOT, Release


def described(folder: Path, to: Path) -> FileDescriptorSet:
    """Compile a folder of protos."""
    files = [path.name for path in sorted(folder.glob("*.proto"))]
    arguments = ["protoc", f"-Istream_core/rpc={folder}", f"--descriptor_set_out={to}"]
    assert protoc.main([*arguments, *(f"stream_core/rpc/{name}" for name in files)]) == 0
    return FileDescriptorSet.FromString(to.read_bytes())


def messages(described: FileDescriptorSet) -> dict[str, DescriptorProto]:
    """All messages by their full names, inner ones too."""
    found: dict[str, DescriptorProto] = {}

    def add(prefix: str, several: Iterable[DescriptorProto]) -> None:
        for message in several:
            found[f"{prefix}.{message.name}"] = message
            add(f"{prefix}.{message.name}", message.nested_type)

    for file in described.file:
        add(file.package, file.message_type)
    return found


def enums(described: FileDescriptorSet) -> dict[str, EnumDescriptorProto]:
    """All enums that stand alone."""
    return {f"{file.package}.{enum.name}": enum for file in described.file for enum in file.enum_type}


def faults(before: FileDescriptorSet, now: FileDescriptorSet) -> list[str]:
    """What somebody of before would misread."""
    found = []
    new_messages, new_enums = messages(now), enums(now)
    for name, old in messages(before).items():
        if (new := new_messages.get(name)) is None:
            found.append(f"message {name} is gone")
            continue
        fields = {field.number: field for field in new.field}
        for field in old.field:
            there = fields.get(field.number)
            what = f"{name}.{field.name} = {field.number}"
            if there is None:
                if not any(held.start <= field.number < held.end for held in new.reserved_range):
                    found.append(f"{what} is gone, and its number is not reserved")
            elif (there.name, there.type, there.label, there.type_name) != (
                field.name,
                field.type,
                field.label,
                field.type_name,
            ):
                found.append(f"{what} is {there.name} of another kind now")
    for name, old_enum in enums(before).items():
        values = {value.number: value.name for value in new_enums.get(name, EnumDescriptorProto()).value}
        found += [
            f"{name}.{value.name} = {value.number} is {values.get(value.number, 'gone')}"
            for value in old_enum.value
            if values.get(value.number) != value.name
        ]
    calls = {
        (service.name, method.name): (method.input_type, method.output_type, method.server_streaming)
        for file in now.file
        for service in file.service
        for method in service.method
    }
    found += [
        f"{service.name}.{method.name} is gone or another one"
        for file in before.file
        for service in file.service
        for method in service.method
        if calls.get((service.name, method.name)) != (method.input_type, method.output_type, method.server_streaming)
    ]
    return found


def test_nothing_is_taken_away(release: Release, tmp_path: Path) -> None:
    """No field, value or call is gone or means something else."""
    before = described(release.folder / "protos", tmp_path / "before")
    now = described(ROOT / "protos", tmp_path / "now")
    assert len(messages(before)) > 10
    assert faults(before, now) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string id = 1;", "string id = 9;"),
        ("string id = 1;", "bytes id = 1;"),
        ("string id = 1;", "string name = 1;"),
        ("string id = 1;", "repeated string id = 1;"),
    ],
    ids=["number", "type", "name", "repeated"],
)
def test_a_change_is_seen(tmp_path: Path, old: str, new: str) -> None:
    """Each kind of change that would be misread."""
    sets = []
    for name, field in (("before", old), ("now", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.proto").write_text(f'syntax = "proto3"; package p; message M {{ {field} }}')
        sets.append(described(tmp_path / name, tmp_path / f"{name}.set"))
    assert len(faults(*sets)) == 1
