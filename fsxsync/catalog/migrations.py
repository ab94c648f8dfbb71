"""The schema. A migration is frozen once released: a change is a new migration.

All times are nanoseconds since the epoch. Paths are BLOB: SQLite compares them as memcmp does, which is
S3's order of UTF-8 keys, and a name that is no UTF-8 fits too.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sqlite_utils import Database, Migrations

catalog = Migrations("fsxsync.catalog")


def unknown(db: Database) -> set[str]:
    """Migrations that a newer version applied to this database."""
    with closing(sqlite3.connect(":memory:")) as empty:
        known = {migration.name for migration in catalog.pending(Database(empty, execute_plugins=False))}
    return {migration.name for migration in catalog.applied(db)} - known


@catalog()
def m0001_associations(db: Database) -> None:
    # numbers: an association's small integer in the other tables (an id in each of a million rows costs 20
    # MB an index), with the counts of its rows, which triggers keep: counting a million rows takes too
    # long to ask often.
    #   number    order of creation; AUTOINCREMENT: the number of a deleted association never comes back
    # associations: the document is all of model.association.Association as JSON
    db.conn.execute(
        """CREATE TABLE numbers (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            files INTEGER NOT NULL DEFAULT 0,
            released INTEGER NOT NULL DEFAULT 0,
            resident_bytes INTEGER NOT NULL DEFAULT 0,
            pending INTEGER NOT NULL DEFAULT 0,
            pending_local INTEGER NOT NULL DEFAULT 0,
            pending_remote INTEGER NOT NULL DEFAULT 0
        ) STRICT"""
    )
    db.conn.execute(
        """CREATE TABLE associations (
            association INTEGER PRIMARY KEY,
            document TEXT NOT NULL
        ) STRICT"""
    )


@catalog()
def m0002_files(db: Database) -> None:
    # files: one row a synced path = model.identity.Base, the base of reconcile.
    #   sort_key      path, for a directory with '/' at its end: a walk of the rows is in the order of an
    #                 S3 listing
    #   kind          identity.KINDS
    #   ino           64 unsigned bits, kept as signed
    #   etag          without quotes, the If-Match of our next write; NULL: an implied directory
    #   posix_*       what the object's user metadata said; NULL: nothing
    #   content_hash  XXH3-128 of the bytes; NULL: never read here (imported, still a stub)
    db.conn.execute(
        """CREATE TABLE files (
            association INTEGER NOT NULL,
            sort_key BLOB NOT NULL CHECK (length(sort_key) > 0),
            kind INTEGER NOT NULL,
            ino INTEGER NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            ctime_ns INTEGER NOT NULL,
            mode INTEGER NOT NULL,
            uid INTEGER NOT NULL,
            gid INTEGER NOT NULL,
            etag TEXT,
            remote_size INTEGER NOT NULL,
            last_modified_ns INTEGER NOT NULL,
            version_id TEXT,
            posix_mode INTEGER,
            posix_uid INTEGER,
            posix_gid INTEGER,
            posix_mtime_ns INTEGER,
            posix_atime_ns INTEGER,
            posix_known INTEGER NOT NULL,
            storage_class TEXT NOT NULL,
            released INTEGER NOT NULL,
            content_hash BLOB CHECK (length(content_hash) = 16),
            target BLOB,
            PRIMARY KEY (association, sort_key)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX files_ino ON files (ino)")
    db.conn.execute(
        """CREATE TRIGGER files_insert AFTER INSERT ON files BEGIN
            UPDATE numbers SET files = files + 1, released = released + NEW.released,
                resident_bytes = resident_bytes + (1 - NEW.released) * NEW.size WHERE number = NEW.association;
        END"""
    )
    db.conn.execute(
        """CREATE TRIGGER files_update AFTER UPDATE OF released, size ON files
            WHEN OLD.released <> NEW.released OR OLD.size <> NEW.size BEGIN
            UPDATE numbers SET released = released + NEW.released - OLD.released, resident_bytes = resident_bytes
                + (1 - NEW.released) * NEW.size - (1 - OLD.released) * OLD.size WHERE number = NEW.association;
        END"""
    )
    db.conn.execute(
        """CREATE TRIGGER files_delete AFTER DELETE ON files BEGIN
            UPDATE numbers SET files = files - 1, released = released - OLD.released,
                resident_bytes = resident_bytes - (1 - OLD.released) * OLD.size WHERE number = OLD.association;
        END"""
    )


@catalog()
def m0003_changelog(db: Database) -> None:
    # changelog: one pending row a path = "look at it".
    #   first_seen_ns   when the oldest change happened that no look has settled
    #   window_ns       first hint since the last look: the cap of the delay counts from here; NULL: none
    #                   since
    #   not_before_ns   due from then on
    #   seq             the hint that came last, counted over all rows: what tells a newer hint from the
    #                   one looked at
    #   attempts        looks that failed since the last hint; last_error and last_code stay until one
    #                   succeeds
    db.conn.execute(
        """CREATE TABLE changelog (
            association INTEGER NOT NULL,
            path BLOB NOT NULL,
            local INTEGER NOT NULL,
            remote INTEGER NOT NULL,
            ino INTEGER,
            first_seen_ns INTEGER NOT NULL,
            window_ns INTEGER,
            not_before_ns INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            last_error TEXT,
            last_code TEXT,
            waiting_for TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (association, path)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX changelog_due ON changelog (association, not_before_ns)")
    db.conn.execute("CREATE INDEX changelog_oldest ON changelog (association, first_seen_ns)")
    db.conn.execute("CREATE INDEX changelog_ino ON changelog (ino) WHERE ino IS NOT NULL")
    db.conn.execute(
        "CREATE INDEX changelog_errors ON changelog (association, attempts DESC) WHERE last_error IS NOT NULL"
    )
    db.conn.execute(
        """CREATE TRIGGER changelog_insert AFTER INSERT ON changelog BEGIN
            UPDATE numbers SET pending = pending + 1, pending_local = pending_local + NEW.local,
                pending_remote = pending_remote + NEW.remote WHERE number = NEW.association;
        END"""
    )
    db.conn.execute(
        """CREATE TRIGGER changelog_update AFTER UPDATE OF local, remote ON changelog
            WHEN OLD.local <> NEW.local OR OLD.remote <> NEW.remote BEGIN
            UPDATE numbers SET pending_local = pending_local + NEW.local - OLD.local,
                pending_remote = pending_remote + NEW.remote - OLD.remote WHERE number = NEW.association;
        END"""
    )
    db.conn.execute(
        """CREATE TRIGGER changelog_delete AFTER DELETE ON changelog BEGIN
            UPDATE numbers SET pending = pending - 1, pending_local = pending_local - OLD.local,
                pending_remote = pending_remote - OLD.remote WHERE number = OLD.association;
        END"""
    )


@catalog()
def m0004_rest(db: Database) -> None:
    # uploads: multipart uploads that were begun and not ended; what is left of them is aborted at the next
    # start
    #   association   whatever the caller groups them by; not a number, for they outlive associations
    # facts: small things to remember, as JSON: the instance's id, what a store was seen to obey
    # problems: what a person should see; one row a path and kind
    #   kept_as       where a conflict's local version went
    db.conn.execute(
        """CREATE TABLE uploads (
            upload_id TEXT PRIMARY KEY,
            association TEXT NOT NULL,
            path BLOB NOT NULL,
            key TEXT NOT NULL,
            started_ns INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX uploads_association ON uploads (association)")
    db.conn.execute("CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID")
    db.conn.execute(
        """CREATE TABLE problems (
            association INTEGER NOT NULL,
            path BLOB NOT NULL,
            kind TEXT NOT NULL,
            code TEXT NOT NULL,
            message TEXT NOT NULL,
            detected_ns INTEGER NOT NULL,
            kept_as BLOB,
            PRIMARY KEY (association, path, kind)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX problems_kind ON problems (association, kind)")


@catalog()
def m0005_resumable_uploads(db: Database) -> None:
    # uploads: multipart uploads that were begun and not ended; a later try goes on with them, or they are aborted
    #   number        AUTOINCREMENT: what comes late for one that has ended must not meet another
    #   association   as before: not a number, for they outlive associations
    #   upload_id     the store's; NULL: about to be started, the store may have one whose id was lost
    #   part_size     the plan's; NULL: nobody can go on with it (begun by an older version, or upload_id is NULL)
    #   headers       a digest of what can't be changed after the start
    # upload_parts: parts that the store took
    #   crc64nvme     64 unsigned bits, kept as signed
    # An older version's intents had ids that begin with 'intent '. The path is in the key.
    db.conn.execute("ALTER TABLE uploads RENAME TO old_uploads")
    db.conn.execute("DROP INDEX uploads_association")
    db.conn.execute(
        """CREATE TABLE uploads (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            association TEXT NOT NULL,
            key TEXT NOT NULL,
            upload_id TEXT,
            started_ns INTEGER NOT NULL,
            part_size INTEGER,
            headers BLOB
        ) STRICT"""
    )
    db.conn.execute(
        """INSERT INTO uploads (association, key, upload_id, started_ns)
            SELECT association, key, CASE WHEN upload_id LIKE 'intent %' THEN NULL ELSE upload_id END, started_ns
            FROM old_uploads ORDER BY started_ns"""
    )
    db.conn.execute("DROP TABLE old_uploads")
    db.conn.execute("CREATE INDEX uploads_key ON uploads (association, key)")
    db.conn.execute(
        """CREATE TABLE upload_parts (
            upload INTEGER NOT NULL,
            number INTEGER NOT NULL,
            length INTEGER NOT NULL,
            etag TEXT NOT NULL,
            crc64nvme INTEGER NOT NULL,
            PRIMARY KEY (upload, number)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute(
        """CREATE TRIGGER uploads_delete AFTER DELETE ON uploads BEGIN
            DELETE FROM upload_parts WHERE upload = OLD.number;
        END"""
    )


@catalog()
def m0006_partials(db: Database) -> None:
    # partials: stubs of which some chunks are here = partials.Partial. Believed only as far as the bytes still fit
    # their checksums: a row that is wrong costs a reading.
    #   ino          64 unsigned bits, kept as signed
    #   path         below the tree's root, where it was seen last
    #   etag, version_id, size   the object version, as the stub's mark has it
    #   mtime_ns, atime_ns   what the stub's times have to be; while chunks arrive they move
    #   here         one bit a chunk, the lowest bit of the first byte first
    #   crcs         CRC64NVME of each chunk whose bit is set, 8 bytes each, the highest first
    #   boot_id      the boot whose page cache holds the data; '': it is on the disk
    db.conn.execute(
        """CREATE TABLE partials (
            ino INTEGER PRIMARY KEY,
            path BLOB NOT NULL,
            etag TEXT NOT NULL,
            version_id TEXT,
            size INTEGER NOT NULL,
            chunk_size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            atime_ns INTEGER NOT NULL,
            here BLOB NOT NULL,
            crcs BLOB NOT NULL,
            resident_bytes INTEGER NOT NULL,
            boot_id TEXT NOT NULL
        ) STRICT"""
    )


@catalog()
def m0007_xattrs(db: Database) -> None:
    # files.posix_xattrs   the object's extended attributes as text (model.xattrs); NULL: it says nothing of them
    db.conn.execute("ALTER TABLE files ADD COLUMN posix_xattrs TEXT")


@catalog()
def m0008_moves(db: Database) -> None:
    # moves: renames whose copy on the server may have been asked for = model.move.Move. Written to the disk before the
    # copy is asked for; gone with the transaction that writes the new path's row.
    #   path       the new one: where the copy shall be
    #   source     the path whose object is copied
    #   document   all of Move as JSON
    db.conn.execute(
        """CREATE TABLE moves (
            association INTEGER NOT NULL,
            path BLOB NOT NULL,
            source BLOB NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (association, path)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX moves_source ON moves (association, source)")


@catalog()
def m0009_conflicts(db: Database) -> None:
    # conflicts: open ones = model.open_conflict.Conflict. One row a path and copy: a path may be in conflict again
    # before anybody looked at the first.
    #   kept_as    where the local version lies; x'' where nothing was moved
    #   kind       kept, blocked or clash
    #   local_*    the local version as it was shown, NULL: unknown (from an older catalog) or gone
    #   remote_*   the object's
    # An older version kept them among the problems, one a path.
    db.conn.execute(
        """CREATE TABLE conflicts (
            association INTEGER NOT NULL,
            path BLOB NOT NULL,
            kept_as BLOB NOT NULL,
            kind TEXT NOT NULL,
            detected_ns INTEGER NOT NULL,
            local_ino INTEGER,
            local_size INTEGER,
            local_mtime_ns INTEGER,
            remote_etag TEXT,
            remote_size INTEGER,
            remote_modified_ns INTEGER,
            remote_version_id TEXT,
            PRIMARY KEY (association, path, kept_as)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX conflicts_kept ON conflicts (association, kept_as)")
    db.conn.execute(
        """INSERT INTO conflicts (association, path, kept_as, kind, detected_ns)
            SELECT association, path, coalesce(kept_as, x''), CASE WHEN kept_as IS NULL THEN 'blocked' ELSE 'kept' END,
                detected_ns FROM problems WHERE kind = 'conflict'"""
    )
    db.conn.execute("DELETE FROM problems WHERE kind = 'conflict' AND kept_as IS NOT NULL")


@catalog()
def m0011_tasks(db: Database) -> None:
    # tasks: data repository tasks = model.task.Task, until 14 days after their end.
    #   request    all of model.task.Order as JSON: what never changes
    #   stage, after   model.task.Cursor: where to go on after a restart
    #   token      the ClientRequestToken of whoever asked
    # task_failures: rows of the completion report, in the order in which they came
    # task_gone: paths, relative to their association, that a task found gone on one side; acted on once it is known
    #   how many there are
    db.conn.execute(
        """CREATE TABLE tasks (
            id TEXT PRIMARY KEY,
            created_ns INTEGER NOT NULL,
            lifecycle TEXT NOT NULL,
            started_ns INTEGER,
            ended_ns INTEGER,
            updated_ns INTEGER NOT NULL,
            total INTEGER NOT NULL,
            succeeded INTEGER NOT NULL,
            failed INTEGER NOT NULL,
            moved INTEGER NOT NULL,
            stage INTEGER NOT NULL,
            after BLOB NOT NULL,
            failure TEXT NOT NULL,
            token TEXT,
            request TEXT NOT NULL
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute("CREATE INDEX tasks_created ON tasks (created_ns, id)")
    db.conn.execute("CREATE INDEX tasks_open ON tasks (ended_ns)")
    db.conn.execute("CREATE UNIQUE INDEX tasks_token ON tasks (token)")
    db.conn.execute(
        """CREATE TABLE task_failures (
            task TEXT NOT NULL,
            number INTEGER NOT NULL,
            path BLOB NOT NULL,
            status TEXT NOT NULL,
            code TEXT NOT NULL,
            message TEXT NOT NULL,
            PRIMARY KEY (task, number)
        ) STRICT, WITHOUT ROWID"""
    )
    db.conn.execute(
        """CREATE TABLE task_gone (
            task TEXT NOT NULL,
            stage INTEGER NOT NULL,
            path BLOB NOT NULL,
            PRIMARY KEY (task, stage, path)
        ) STRICT, WITHOUT ROWID"""
    )


@catalog()
def m0012_uses(db: Database) -> None:
    # uses: when an application last opened or closed a file = catalog.uses.Uses. Only a hint on what to release first.
    db.conn.execute("CREATE TABLE uses (ino INTEGER PRIMARY KEY, used_ns INTEGER NOT NULL) STRICT")
    db.conn.execute("CREATE INDEX uses_used ON uses (used_ns)")
