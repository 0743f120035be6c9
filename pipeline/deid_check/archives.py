"""gzip, zip and tar: what their headers carry, and what is packed in them, scanned in turn.

References
----------
RFC 1952 (gzip). PKWARE, "APPNOTE.TXT: .ZIP file format specification". POSIX.1-2017, pax, "ustar interchange format".
"""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

from pipeline.deid_check.context import Context
from pipeline.deid_check.findings import Hit
from pipeline.deid_check.keys import judge_text
from pipeline.deid_check.names import judge_parts, show_member
from pipeline.deid_check.streams import PIECE_BYTES, Budget, Stream, first_filled_byte
from pipeline.errors import Unjudgeable

GZIP_MAGIC, ZIP_MAGICS = b"\x1f\x8b\x08", (b"PK\3\4", b"PK\5\6")
FLAG_EXTRA, FLAG_NAME, FLAG_COMMENT = 4, 8, 16
TAR_BLOCK, TAR_MAGIC = 512, b"ustar"
# Longer names and comments are no names and comments.
MAX_HEADER_BYTES = 1 << 20
MAX_DIRECTORY_BYTES = 16 << 20
MAX_MEMBERS = 100_000
HARMLESS_ACCOUNTS = frozenset({"", "root", "wheel", "users", "user", "staff", "nobody", "nogroup"})


class Inflater:
    """Unpacks the members of a gzip file one after the other.

    Parameters
    ----------
    stream : Stream
        At the begin of the file.
    budget : Budget
    file_name : str
        Under which the file lies; the name in the header is fine if it is the same.
    """

    def __init__(self, stream: Stream, budget: Budget, file_name: str) -> None:
        self._stream, self._budget = stream, budget
        self._own_name = file_name.removesuffix(".gz")
        self.hits: list[Hit] = []
        self.is_broken = False
        self._open_member()

    def read(self, n_bytes: int) -> bytes:
        """Return the next unpacked bytes, none at the end.

        Raises
        ------
        Unjudgeable
            If the file breaks off, or unpacks to too much.
        """
        try:
            content = self._unpack_next(n_bytes)
            self._budget.spend(len(content))
        except (Unjudgeable, zlib.error):
            self.is_broken = True
            raise
        return content

    def _unpack_next(self, n_bytes: int) -> bytes:
        content = b""
        while not content:
            if self._unpack.eof:
                if self._stream.peek(3) != GZIP_MAGIC:
                    return b""
                self._open_member()
            packed = self._unpack.unconsumed_tail or self._stream.read(PIECE_BYTES)
            if not packed:
                raise Unjudgeable("gzip file that breaks off")
            content = self._unpack.decompress(packed, n_bytes)
            if self._unpack.eof:
                self._stream.push_back(self._unpack.unused_data)
        return content

    def _open_member(self) -> None:
        self._unpack = zlib.decompressobj(wbits=31)
        self._judge_header(self._stream.peek(1 << 16))

    def _judge_header(self, head: bytes) -> None:
        flags, rest = head[3], head[10:]
        if flags & FLAG_EXTRA:
            n_bytes = int.from_bytes(rest[:2], "little")
            extra, rest = rest[2 : 2 + n_bytes], rest[2 + n_bytes :]
            # BGZF and dictzip keep sizes there.
            if extra[:2] not in (b"BC", b"RA"):
                self.hits.append(Hit("gzip header", "extra field"))
        if flags & FLAG_NAME:
            name, _, rest = rest.partition(b"\0")
            if name.decode("latin-1") not in ("", self._own_name):
                self.hits.append(Hit("gzip header", "another file name"))
        if flags & FLAG_COMMENT and rest.partition(b"\0")[0]:
            self.hits.append(Hit("gzip header", "comment"))


def scan_gzip(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what a gzip file's headers carry, and what is packed in it."""
    inflater = Inflater(stream, context.budget, context.name)
    inner = Stream(inflater.read)
    yield from context.scan_inside(inner, context.name.removesuffix(".gz"), "")
    # What was not read inside, for it is packed too deep, is read over to come to the end.
    while not inflater.is_broken and inner.skip(PIECE_BYTES):
        pass
    yield from inflater.hits
    place = None if inflater.is_broken else first_filled_byte(stream)
    if place is not None:
        yield Hit(f"offset {place}", "bytes behind the packed data")


def scan_tar(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what the headers of a tar file carry, and what is packed in it; read forwards, one member at a time."""
    long_name = ""
    for number in range(1, MAX_MEMBERS + 1):
        block = stream.read(TAR_BLOCK)
        if len(block) < TAR_BLOCK or not any(block):
            break
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Unjudgeable("tar file with a broken header") from error
        end = stream.position + -(-max(member.size, 0) // TAR_BLOCK) * TAR_BLOCK
        if member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
            content = stream.read(min(member.size, MAX_HEADER_BYTES)).decode("utf-8", "replace")
            yield from _judge_tar_header(content, number)
            long_name = content.rstrip("\0") if member.type == tarfile.GNUTYPE_LONGNAME else long_name
        else:
            yield from _scan_member(member, long_name, number, stream, context)
            long_name = ""
        stream.skip(end - stream.position)
    else:
        yield Hit("", f"more than {MAX_MEMBERS} members; the rest was not read", is_doubt=True)
    place = first_filled_byte(stream)
    if place is not None:
        yield Hit(f"offset {place}", "bytes behind the archive")


def _judge_tar_header(content: str, number: int) -> Iterator[Hit]:
    for kind in {*judge_text(content), *judge_parts(content)}:
        yield Hit(f"[entry {number}]", f"{kind}, in a header")


def _scan_member(
    member: tarfile.TarInfo, long_name: str, number: int, stream: Stream, context: Context
) -> Iterator[Hit]:
    name = long_name or member.name
    place = show_member(name, number)
    for kind in {*judge_parts(name), *judge_parts(member.linkname)}:
        yield Hit(place, f"{kind}, in a name")
    if {member.uname, member.gname} - HARMLESS_ACCOUNTS:
        yield Hit(place, "account name")
    if member.isreg() and member.size > 0:
        left = member.size

        def read(n_bytes: int) -> bytes:
            nonlocal left
            piece = stream.read(min(n_bytes, left))
            left -= len(piece)
            return piece

        yield from context.scan_inside(Stream(read), name.rsplit("/", 1)[-1], place)


class _GuardedFile(io.FileIO):
    """A file that refuses to be read into memory as a whole, as the directory of a hostile archive asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise Unjudgeable(f"zip file with a directory of more than {MAX_DIRECTORY_BYTES >> 20} MiB")
        return super().read(size) or b""


def scan_zip(stream: Stream, context: Context) -> Iterator[Hit]:
    """Yield what the directory of a zip file carries, and what is packed in it.

    Raises
    ------
    Unjudgeable
        If it is damaged, or too large for memory.
    """
    source = _GuardedFile(context.path) if context.path is not None else io.BytesIO(stream.read_all())
    try:
        with source, zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise Unjudgeable(f"zip file of more than {MAX_MEMBERS} members")
            if archive.comment:
                yield Hit("zip directory", "comment")
            if members and min(member.header_offset for member in members) > 0:
                yield Hit("offset 0", "bytes before the archive")
            for number, member in enumerate(members, 1):
                yield from _scan_zip_member(archive, member, number, context)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError, RuntimeError) as error:
        raise Unjudgeable(f"zip file that cannot be read ({type(error).__name__})") from error


def _scan_zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, number: int, context: Context) -> Iterator[Hit]:
    place = show_member(member.filename, number)
    for kind in judge_parts(member.filename):
        yield Hit(place, f"{kind}, in a name")
    if member.comment:
        yield Hit(place, "comment")
    if member.is_dir():
        return
    try:
        with archive.open(member) as file:

            def read(n_bytes: int) -> bytes:
                piece = file.read(n_bytes)
                context.budget.spend(len(piece))
                return piece

            yield from context.scan_inside(Stream(read), member.filename.rsplit("/", 1)[-1], place)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, OSError) as error:
        # Encrypted, damaged, or packed in an unusual way.
        yield Hit(place, f"member that cannot be read ({type(error).__name__})", is_doubt=True)
