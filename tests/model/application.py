"""What applications do in the directory, each the way it is worked on in this world."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from model.bucket_user import BucketUser
from model.sides import EXPECTED, FAILED
from model.steps import step
from model.things import TAG, Thing, inode_of, md5, rename_or_remove, replace_file, write_all, write_file


class Application(BucketUser):
    """Who works in the directory; in `race` both do."""

    @step
    def write(self, path: str, size: int) -> None:
        """Make a file, or overwrite it in place."""
        content = self._content(size)
        self.must.discard(content)  # until it is written
        if not self._do_write(path, content):
            self.parts.add(content)
        else:
            self._hold(content)
            self._brought(path, content)

    def _do_write(self, path: str, content: bytes) -> bool:
        front = self.front
        if front == self.behind:
            with self._frozen():
                before = self.local(path)
                if before is not None and (before.kind == "symlink" or self.mark(path) is not None):
                    # Who writes behind the mount replaces a released file, and does not write into it (DESIGN §5).
                    return self._do(lambda root: replace_file(root / path, content), [(path, before)], front)
                return self._do(lambda root: write_file(root / path, content), [(path, before)], front)
        before, inode = self.local(path), inode_of(self.behind / path)
        if before is not None and before.kind == "symlink":
            replaced = [(path, before), (path, self.remote(path))]
            return self._do(lambda root: replace_file(root / path, content), replaced, front)
        opened: list[int] = []
        met = [(path, before)]

        def act(root: Path) -> None:
            try:
                write_file(root / path, content, new=before is None, opened=opened)
            finally:
                if before is not None and opened and opened != [inode]:
                    met[:] = [(path, self.remote(path))]  # an import came first, and what was here lies beside it

        return self._do(act, met, front)

    @step
    def append(self, path: str, size: int) -> None:
        """Write at the end of what is there."""
        more = b"+" * size

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b") as stream:
                old = stream.read()
                self._check_read(path, old)
                self._know(old + more)
                started.append(old + more)
                stream.write(more)
                self._drop(Thing("file", old))
            if old:
                self._keep(old + more)
            self._brought(path, old + more)

        started: list[bytes] = []
        if not self._work(act):
            self.parts.update(started)  # the disk was full in the middle
            for content in started:
                self._tried(path, content[: -len(more)])

    @step
    def rewrite(self, path: str) -> None:
        """Other bytes in the place of all that there are: neither the size nor the inode changes."""

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b", buffering=0) as stream:
                old = stream.read()
                self._check_read(path, old)
                if len(old) < TAG:
                    return
                content = self._content(len(old))
                self.must.discard(content)
                begun.append((content, old))
                stream.seek(0)
                write_all(stream, content)
                self._drop(Thing("file", old))
            self._hold(content)
            self._brought(path, content)

        begun: list[tuple[bytes, bytes]] = []
        if not self._work(act):
            self.mixes += begun  # stopped in the middle
            for _, old in begun:
                self._tried(path, old)

    @step
    def truncate(self, path: str, size: int) -> None:
        """Cut a file off, but not its tag."""

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                return
            with (root / path).open("r+b") as stream:
                old = stream.read()
                self._check_read(path, old)
                if TAG <= size < len(old):
                    self._know(old[:size])
                    started.append(old)
                    stream.truncate(size)
                    self._drop(Thing("file", old))
            if TAG <= size < len(old):
                self._keep(old[:size])
                self._brought(path, old[:size])

        started: list[bytes] = []
        if not self._work(act):
            for old in started:
                self._tried(path, old)

    @step
    def replace(self, path: str, size: int) -> None:
        """As editors save: a new file, renamed over the old one."""
        content = self._content(size)
        self.must.discard(content)
        if not self._work(lambda root: replace_file(root / path, content), path):
            self.parts.add(content)
        else:
            self._hold(content)
            self._brought(path, content)

    @step
    def symlink(self, path: str) -> None:
        target = self._content(TAG)
        self.must.discard(target)

        def act(root: Path) -> None:
            beside = root / (path + ".tmp-link")
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(target.decode())
            rename_or_remove(beside, root / path)

        if self._work(act, path):
            self._hold(target)
            self._brought(path, target)

    @step
    def unlink(self, path: str) -> None:
        self._work(lambda root: (root / path).unlink(), path)

    @step
    def rename(self, old: str, new: str) -> None:
        """Of a file or of a whole directory; onto a file, it replaces that."""

        def act(root: Path) -> None:
            (root / old).lstat()
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)

        if old == new or new.startswith(old + "/"):
            return
        is_directory = (self.behind / old).is_dir()
        moved, inode = self._things_at(old), inode_of(self.behind / old)
        done = self._work(act, *([] if is_directory else [new]))
        # A daemon that dies may have done what it could not answer any more.
        if done or (inode and inode_of(self.behind / new) == inode):
            for below, things in moved.items():
                self._brought(new + below, *self._contents_of(old + below, things))

    def _contents_of(self, path: str, things: Sequence[Thing]) -> set[bytes]:
        """Of those that may have been here when something was done."""
        return {thing.content for thing in things if thing.content and self._may_be_here(path, thing)}

    def _things_at(self, path: str) -> dict[str, list[Thing]]:
        """What stands at a path and below it, by the rest of the path, on both sides: an import may come before a
        rename through the mount."""
        found: dict[str, list[Thing]] = {}
        if not self.has_losers:
            return found
        with self._frozen():
            names = [""]
            for directory, _, files in os.walk(self.behind / path):
                at = os.path.relpath(directory, self.behind / path)
                names += ["/" + os.path.normpath(f"{at}/{name}") for name in files]
            for below in names:
                things = [self.local(path + below), self.remote(path + below)]
                found[below] = [thing for thing in things if thing is not None]
        return found

    @property
    def has_losers(self) -> bool:
        """A conflict costs one of the two versions, as the policy says, or might where it is moved to."""
        return self.is_one_of_two or self.options.get("on_conflict", "keep-both") != "keep-both"

    @step
    def mkdir(self, path: str) -> None:
        self._work(lambda root: (root / path).mkdir(parents=True, exist_ok=True))

    @step
    def rmtree(self, path: str) -> None:
        """``rm -r``, file by file: what comes in meanwhile is seen or stays."""
        for directory, directories, names in os.walk(self.behind / path, topdown=False):
            at = os.path.relpath(directory, self.behind)
            links = [name for name in directories if (Path(directory) / name).is_symlink()]
            for below in sorted(f"{at}/{name}" for name in [*names, *links]):
                self._work(lambda root, below=below: (root / below).unlink(), below)
            self._work(lambda root, at=at: (root / at).rmdir())

    @step
    def read(self, path: str) -> None:
        """What a reader gets is what somebody wrote, whole."""
        root = self.front  # asked once: the daemon may be about to die
        try:
            content = (root / path).read_bytes()
        except OSError as error:
            if error.errno not in EXPECTED | FAILED | {errno.EISDIR, errno.ELOOP}:
                raise
            return
        if root != self.behind or self.mark(path) is None:
            self._check_read(path, content)

    def _check_read(self, path: str, content: bytes) -> None:
        assert self.is_known(content), (
            f"read {content[:80]!r} … {content[-40:]!r} ({len(content)} bytes) from {path}, which nobody wrote"
        )

    @step
    def link(self, old: str, new: str) -> None:
        """Another name for a file."""

        def act(root: Path) -> None:
            if not (root / old).is_symlink():
                (root / new).parent.mkdir(parents=True, exist_ok=True)
                (root / new).hardlink_to(root / old)

        linked = self._things_at(old)
        if self._work(act):
            self._brought(new, *self._contents_of(old, linked.get("", ())))

    @step
    def grow(self, path: str, pieces: int, piece: int) -> None:
        """Write a file piece by piece while the daemon works; what is seen between two pieces is no lie."""
        content = self._content(pieces * piece)
        self.must.discard(content)
        self.parts.add(content)

        def act(root: Path) -> None:
            if (root / path).is_symlink() or (root == self.behind and self.mark(path) is not None):
                raise OSError(errno.ESTALE, "not to be written in place")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            with (root / path).open("wb", buffering=0) as stream:
                for at in range(0, len(content), piece):
                    write_all(stream, content[at : at + piece])
                    time.sleep(0.01)

        before = [(path, look(path)) for look in (self.local, self.remote)]
        if self._do(act, before):
            self._hold(content)
            self._brought(path, content)

    @step
    def race(self, path: str, size: int) -> None:
        """Both sides write at the same moment. Ours is there afterwards, unless it was exported before theirs came;
        theirs, unless an import may have brought it before we wrote."""
        ours, theirs = self._content(size), self._content(size + TAG)
        self.must -= {ours, theirs}
        before = [(path, look(path)) for look in (self.local, self.remote)]
        replaced: list[Thing | None] = []

        def put() -> None:
            with self.store.still():
                replaced.append(self.remote(path))
                self._put_object(path, theirs, {})

        other = threading.Thread(target=put)
        other.start()
        done = self._do(lambda root: replace_file(root / path, ours), before)
        if self._may_be_here(path, Thing("file", theirs, etag=md5(theirs))):
            self.gone.add(theirs)
        else:
            self._hold(theirs)
        other.join()
        if not done:
            self.parts.add(ours)
        else:
            self._hold(ours)
            self._brought(path, ours)
        self._drop(replaced[0])
