"""A ZIP archive in memory, read within bounds: nothing is written to disk, so a member's path is only a name."""

import io
import zipfile
import zlib

from programs.documents.document import ReadError

MEMBERS = 20_000
MEMBER_LIMIT = 200 << 20  # bytes of one member, unpacked
UNPACKED_LIMIT = 500 << 20  # bytes of all members that are read, unpacked


class Zipped:
    """Raises ReadError, which names `name`, for an archive or a member that is damaged, encrypted or too large."""

    def __init__(self, content: bytes, name: str):
        self._name = name
        self._unpacked = 0
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError) as error:
            raise ReadError(f"{name!r} is damaged: its archive cannot be opened.") from error
        if len(self._archive.filelist) > MEMBERS:
            raise ReadError(
                f"{name!r} holds {len(self._archive.filelist):,} files: more than {MEMBERS:,} are not read."
            )
        self._members = {member.filename: member for member in self._archive.filelist}

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def has(self, member: str) -> bool:
        return member in self._members

    def read(self, member: str) -> bytes:
        """A member's bytes."""
        entry = self._members.get(member)
        if entry is None:
            raise ReadError(f"{self._name!r} is damaged: its part {member!r} is missing.")
        if entry.flag_bits & 1:
            raise ReadError(f"{self._name!r} is encrypted and needs a password: save it without one.")
        if entry.file_size > MEMBER_LIMIT or self._unpacked + entry.file_size > UNPACKED_LIMIT:
            raise ReadError(f"{self._name!r} is too large: unpacked, it would be over {UNPACKED_LIMIT >> 20} MB.")
        try:
            with self._archive.open(entry) as file:
                content = file.read(MEMBER_LIMIT + 1)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            OSError,
            ValueError,
        ) as error:
            raise ReadError(f"{self._name!r} is damaged: its part {member[:100]!r} cannot be unpacked.") from error
        self._unpacked += len(content)
        return content
