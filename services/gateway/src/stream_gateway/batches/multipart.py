"""An upload's body as it comes: fields and one file, cut out of multipart/form-data. Pure: bytes in, events out.

The framework's own form parser would put the file into memory or, in clear, onto the disk.
"""

from dataclasses import dataclass, field
from typing import Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from stream_core.errors import InvalidRequest

_MAX_FIELD: Final = 4096
_MAX_FIELDS: Final = 32
_FILE: Final = "file"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the file."""

    data: bytes = field(repr=False)


class Form:
    """One body.

    Args:
        content_type: of the request, with the boundary.

    Raises:
        InvalidRequest: it is no multipart/form-data.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind.lower() != b"multipart/form-data" or not boundary:
            raise InvalidRequest("content-type: multipart/form-data with a boundary is expected")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """Of the file; None until it has begun."""
        self.complete = False
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._pieces: list[Piece] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"content-type: {error}") from error

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes of the body; give what they hold of the file.

        Raises:
            InvalidRequest: malformed, too many or too long fields, a second file.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(f"the body is not valid multipart/form-data: {error}") from error
        pieces, self._pieces = self._pieces, []
        return pieces

    def _on_part(self) -> None:
        self._disposition = b""
        self._header = (bytearray(), bytearray())
        self._value.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == _FILE
        if self._is_file:
            if self.filename is not None:
                raise InvalidRequest("file: one per request", param=_FILE)
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        elif len(self.fields) >= _MAX_FIELDS:
            raise InvalidRequest(f"the form has more than {_MAX_FIELDS} fields")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append(Piece(data[start:end]))
            return
        self._value.extend(data[start:end])
        if len(self._value) > _MAX_FIELD:
            name = self._name[:60]
            raise InvalidRequest(f"{name}: more than {_MAX_FIELD:,} bytes, which is the most of a field", param=name)

    def _on_part_end(self) -> None:
        if not self._is_file:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.complete = True
