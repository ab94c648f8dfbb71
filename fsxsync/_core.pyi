from collections.abc import Sequence
from typing import Any, Final, Self, TypeAlias, final

from _typeshed import StrOrBytesPath, structseq
from typing_extensions import Buffer

RENAME_NOREPLACE: int
RENAME_EXCHANGE: int
RESOLVE_BENEATH: int
RESOLVE_NO_SYMLINKS: int
RESOLVE_NO_XDEV: int
RESOLVE_NO_MAGICLINKS: int
FALLOC_FL_KEEP_SIZE: int
FALLOC_FL_PUNCH_HOLE: int
MNT_DETACH: int

# hashing.c
def xxh3_128(data: Buffer, /) -> bytes: ...
def xxh3_128_range(fd: int, offset: int, length: int, /) -> bytes: ...
def crc64nvme(data: Buffer, crc: int = 0, /) -> int: ...
def _crc64nvme_portable(data: Buffer, crc: int = 0, /) -> int: ...
def crc64nvme_range(fd: int, offset: int, length: int, /) -> int: ...
def crc64nvme_combine(crc1: int, crc2: int, length2: int, /) -> int: ...
def hash_range(fd: int, offset: int, length: int, /) -> tuple[bytes, int]: ...
def hash_parts(fd: int, offset: int, length: int, part_size: int, /) -> tuple[bytes, list[int]]: ...

# syscalls.c
def renameat2(olddirfd: int, old: bytes, newdirfd: int, new: bytes, flags: int, /) -> None: ...
def openat2(dirfd: int, path: bytes, flags: int, mode: int, resolve: int, /) -> int: ...
def fallocate(fd: int, mode: int, offset: int, length: int, /) -> None: ...
def syncfs(fd: int, /) -> None: ...
def inode_generation(fd: int, /) -> int: ...
def umount2(path: bytes, flags: int, /) -> None: ...

# getdents.c
def getdents(fd: int, offset: int, max_bytes: int, /) -> list[tuple[bytes, int, int, int]]: ...

# directory.c
DIRECTORY_ENTRY: Final[str]

def read_directory(fd: int, device: int, prefix: bytes, marks: tuple[bytes, ...], /) -> tuple[list[bytes], bytes]: ...

# stub.c
def create_stub(
    dirfd: int,
    name: bytes,
    size: int,
    mode: int,
    uid: int,
    gid: int,
    atime_ns: int,
    mtime_ns: int,
    xattr_name: bytes,
    xattr_value: Buffer,
    /,
) -> tuple[int, int, int]: ...

# look.c
_Status: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int]
_Looked: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int, bytes | None, bytes | None]

def look(root_fd: int, path: bytes, names: tuple[bytes, ...], /) -> _Looked | None: ...
def look_many(root_fd: int, paths: Sequence[bytes], names: tuple[bytes, ...], /) -> list[_Looked | int | None]: ...

# records.c
def merged_records(data: Buffer, /) -> list[tuple[int, int, int, bytes]]: ...
def stand(
    root_fd: int, device: int, files: Sequence[tuple[bytes, int, int, int, int, int, int, int]], /
) -> list[bool]: ...

# release.c
MARK_ALONE: int
MARK_DONE: int
MARK_OPEN: int
MARK_CHANGED: int
MARK_LINKED: int
MARK_REPLACED: int
MARK_KEPT: int
MARK_UNOPENED: int
MARK_FAILED: int
PUNCH_DONE: int
PUNCH_LATE: int
PUNCH_WRITTEN: int
PUNCH_WANTED: int
PUNCH_NO_HOLES: int
PUNCH_FAILED: int

def mark_released(
    root_fd: int,
    device: int,
    xattr: bytes,
    kept: bytes,
    files: Sequence[tuple[bytes, int, int, int, int, int, int, int, int, bytes]],
    /,
) -> list[tuple[int, int, int, int]]: ...
def punch_released(
    xattr: bytes, files: Sequence[tuple[int, bool, int, int, int]], deadline_s: float, /
) -> list[tuple[int, int, _Status | None]]: ...

# hydrate.c
UNMARK_DONE: int
UNMARK_OTHER: int
UNMARK_FAILED: int

def hash_many(files: Sequence[tuple[int, int]], /) -> list[tuple[bytes, int] | int]: ...
def open_marked(
    root_fd: int, paths: Sequence[bytes], xattr: bytes, /
) -> list[tuple[int, _Status, bytes | None] | int | None]: ...
def write_errors(descriptors: Sequence[int], /) -> list[int]: ...
def unmark_many(
    xattr: bytes, files: Sequence[tuple[int, bytes, int, int, int]], /
) -> list[tuple[int, int, _Status | None]]: ...

# transfer.c
TRANSFER_OK: int
TRANSFER_HTTP: int
TRANSFER_CONNECT: int
TRANSFER_TIMEOUT: int
TRANSFER_TLS: int
TRANSFER_RESET: int
TRANSFER_SHORT: int
TRANSFER_LONG: int
TRANSFER_RANGE: int
TRANSFER_DAMAGED: int
TRANSFER_LOCAL_SHORT: int
TRANSFER_LOCAL_IO: int
TRANSFER_LOCAL_CHANGED: int
TRANSFER_CANCELLED: int
TRANSFER_MEMORY: int
TRANSFER_OTHER: int
TRANSFER_HASH_XXH3_128: int
TRANSFER_HASH_CRC64NVME: int

@final
class TransferResult(
    structseq[object],
    tuple[int, int, int, tuple[tuple[bytes, bytes], ...], bytes, int, bytes | None, int | None, int, str],
):
    __match_args__: Final = (
        "id",
        "error",
        "status",
        "headers",
        "body",
        "moved",
        "xxh3_128",
        "crc64nvme",
        "errno",
        "message",
    )
    @property
    def id(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def moved(self) -> int: ...
    @property
    def xxh3_128(self) -> bytes | None: ...
    @property
    def crc64nvme(self) -> int | None: ...
    @property
    def errno(self) -> int: ...
    @property
    def message(self) -> str: ...

@final
class TransferPool:
    def __new__(
        cls,
        threads: int,
        *,
        queue: int = 1024,
        buffer_bytes: int = 262144,
        ca_bundle: StrOrBytesPath | None = None,
        connect_timeout_ms: int = 5000,
        low_speed_bytes: int = 1,
        low_speed_s: int = 60,
        down_limit: int = 0,
        up_limit: int = 0,
    ) -> Self: ...
    def submit(
        self,
        method: str,
        url: str,
        headers: Sequence[bytes],
        *,
        source: int = -1,
        sink: int = -1,
        offset: int = 0,
        length: int = 0,
        body: Buffer | None = None,
        object_offset: int = -1,
        expect_status: int = -1,
        hashes: int = 0,
        priority: int = 2,
        keep_body: int = 65536,
        timeout_ms: int = 0,
        low_speed_s: int = -1,
        proxy: str | None = None,
        expect_crc64nvme: int | None = None,
    ) -> int: ...
    def submit_gets(
        self,
        gets: tuple[tuple[str, Sequence[bytes], int, int, int, int], ...],
        lane: int,
        at_once: int,
        /,
        *,
        priority: int = 2,
        proxy: str | None = None,
    ) -> list[int]: ...
    def cancel(self, job: int, /, *, only_held: bool = False) -> bool: ...
    def collect(self) -> list[TransferResult]: ...
    def fileno(self) -> int: ...
    def set_limits(self, down: int, up: int, /) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None: ...

# channel_mount.c
MS_RDONLY: int
MS_NOSUID: int
MS_NODEV: int
MS_NOEXEC: int
MS_NOATIME: int
MS_DIRSYNC: int
MS_SYNCHRONOUS: int

def mount(source: bytes, target: bytes, fstype: bytes, flags: int, options: bytes, /) -> None: ...
def passthrough_probe(fd: int, /) -> None: ...

# channel.c
FACT_MET: int
FACT_FORGOTTEN: int
FACT_OPENED: int
FACT_CREATED: int
FACT_UNLINKED: int
FACT_FLUSHED: int
FACT_RELEASED: int
FACT_OPENED_DIRECTORY: int
FACT_RELEASED_DIRECTORY: int

def birth_generation(dirfd: int, name: bytes, inode: int, /) -> int: ...

@final
class Channel:
    @property
    def session(self) -> int: ...
    def __new__(cls, device: int, stub_xattr: bytes) -> Self: ...
    def fileno(self) -> int: ...
    def stay_awake(self) -> None: ...
    def invalidate_inode(self, nodeid: int, attr_only: bool, /) -> None: ...
    def invalidate_entry(self, parent: int, name: bytes, /) -> None: ...
    def stats(self) -> dict[str, int]: ...
    def counts(self) -> dict[str, tuple[int, list[int]]]: ...
    def close(self) -> None: ...
    # channel_learning.c
    def answer_directly(self, root_fd: int, timeout_ns: int, hidden: bytes, /) -> None: ...
    def journal_fileno(self) -> int: ...
    def drain(self) -> Sequence[tuple[Any, ...]]: ...
    def serve(self, inode: int, fd: int, is_writable: bool, /) -> None: ...
    def serve_no_more(self, inode: int, /) -> None: ...
    def leave_to_python(self, inode: int, is_pythons: bool, /) -> None: ...
    def join(self, inode: int, fd: int, may_pass: bool, /) -> int: ...
    def leave(self, inode: int, /) -> None: ...
    def keep_free(self, size: int, /) -> None: ...
    def is_absent(self, parent: int, name: bytes, /) -> bool: ...
    def present(self, parent: int, name: bytes, inode: int, generation: int, /) -> None: ...
