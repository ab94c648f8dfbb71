#include "channel_asked.h"
#include "channel_attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* As mount/content.py: the kernel has resolved the name and sends every offset itself. */
#define KEPT_FLAGS (O_ACCMODE | O_NOATIME)
#define OPEN_FLAGS (O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC)

/* No set-id bits have to be watched over (mount/setid.py). */
static bool
has_no_set_id(mode_t mode)
{
    return (mode & S_ISUID) == 0 && (mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP);
}

/* Whether the kernel may read the file by itself: it is here, and settled. */
static bool
may_pass(const struct fsx_direct *direct, int fd, mode_t mode)
{
    return S_ISREG(mode) && has_no_set_id(mode) && fgetxattr(fd, direct->stub_xattr, NULL, 0) < 0 &&
           errno == ENODATA;
}

static int
open_by_name(const struct fsx_asked *asked, uint32_t flags, uint32_t *generation)
{
    struct fsx_tables *tables = &asked->direct->tables;
    char name[FSX_NAME_MAX + 1];
    struct fsx_named found;
    int directory;

    if (!fsx_tables_named(tables, fsx_asked_ino(asked), &found, name) ||
        (directory = fsx_tables_directory(tables, found.parent)) < 0) {
        return -1;
    }
    *generation = found.generation;
    return openat(directory, name, (int)(flags & KEPT_FLAGS) | OPEN_FLAGS);
}

static bool
give_handle(const struct fsx_asked *asked, int fd, uint64_t ino, int64_t backing_id)
{
    struct fsx_fact *fact = fsx_fact_new(FSX_OPENED, NULL);
    struct fsx_open_out out = {.fh = (uint64_t)fd | FSX_FH_NO_FLUSH | (uint64_t)backing_id << 32,
                               .open_flags = FSX_OPEN_PASSTHROUGH | FOPEN_NOFLUSH,
                               .backing_id = (int32_t)backing_id};

    if (fact == NULL) {
        return false;
    }
    fact->uid = asked->head.uid;
    fsx_asked_note(asked, fact, ino, out.fh);
    if (!fsx_asked_reply(asked, 0, &out, sizeof out) &&
        (fact = fsx_fact_new(FSX_RELEASED, NULL)) != NULL) {
        fsx_asked_note(asked, fact, ino, out.fh);
    }
    return true;
}

bool
fsx_asked_open(const struct fsx_asked *asked)
{
    struct fsx_direct *direct = asked->direct;
    struct fsx_tables *tables = &direct->tables;
    uint64_t ino = fsx_asked_ino(asked);
    struct fuse_open_in in;
    struct statx status;
    int64_t backing_id = -1;
    uint32_t generation;
    int fd;

    if (asked->size < sizeof in || fsx_tables_is_pythons(tables, ino)) {
        return false;
    }
    memcpy(&in, asked->body, sizeof in);
    if ((in.flags & O_ACCMODE) != O_RDONLY || (in.flags & O_TRUNC)) {
        return false;
    }
    fd = open_by_name(asked, in.flags, &generation);
    if (fd < 0) {
        return false;
    }
    if (statx(fd, "", AT_EMPTY_PATH, FSX_STATX_WANTED, &status) == 0 && status.stx_ino == ino &&
        fsx_attributes_generation(&status) == generation && fsx_asked_is_in_tree(asked, &status) &&
        may_pass(direct, fd, status.stx_mode)) {
        backing_id = fsx_tables_join_passing(tables, direct->device, ino, fd);
    }
    if (backing_id > 0) {
        if (give_handle(asked, fd, ino, backing_id)) {
            return true;
        }
        fsx_tables_leave(tables, direct->device, ino);
    }
    (void)close(fd);
    return false;
}

/* The caller becomes the owner of what was just made; in a set-gid directory the group is the
 * directory's. 0 or an errno. */
static int
give_to_caller(const struct fsx_asked *asked, int directory, int fd, mode_t mode)
{
    struct stat above;

    if (fstat(directory, &above) < 0 ||
        fchown(fd, asked->head.uid, above.st_mode & S_ISGID ? (gid_t)-1 : asked->head.gid) < 0) {
        return errno;
    }
    if ((mode & (S_ISUID | S_ISGID)) != 0 && fchmod(fd, mode & 07777) < 0) {
        return errno; /* chown had cleared them */
    }
    return 0;
}

/* How the kernel serves a file that was just made. What it keeps must not count as a writer
 * (mount/mappings.py): it gets a descriptor for reading. */
static int64_t
join_made(const struct fsx_asked *asked, int fd, const struct statx *status)
{
    struct fsx_tables *tables = &asked->direct->tables;
    bool passes = has_no_set_id(status->stx_mode);
    char name[32];
    int64_t id;
    int own;

    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    own = passes ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    id = fsx_tables_join(tables, asked->direct->device, status->stx_ino, own, own >= 0);
    if (id < 0) {
        id = fsx_tables_join(tables, asked->direct->device, status->stx_ino, -1, false);
    }
    if (own >= 0) {
        (void)close(own);
    }
    return id;
}

/* The answer to CREATE. */
struct created {
    struct fuse_entry_out entry;
    struct fsx_open_out opened;
};

static void
give_made(const struct fsx_asked *asked, struct fsx_fact *fact, struct created *out, int fd,
          int64_t backing_id)
{
    uint64_t ino = fact->ino;
    struct fsx_fact *end;

    out->opened.fh = (uint64_t)fd | (uint64_t)backing_id << 32;
    if ((fact->flags & O_ACCMODE) == O_RDONLY) {
        out->opened.fh |= FSX_FH_NO_FLUSH;
        out->opened.open_flags = FOPEN_NOFLUSH;
    }
    if (backing_id != 0) {
        out->opened.open_flags |= FSX_OPEN_PASSTHROUGH;
        out->opened.backing_id = (int32_t)backing_id;
        /* A jiffy: open(2) asks whether it may be opened, and every write of the kernel's own makes
         * it forget size and times anyway. */
        out->entry.attr_valid = 0;
        out->entry.attr_valid_nsec = 1;
    }
    fsx_asked_note(asked, fact, ino, out->opened.fh);
    if (fsx_asked_reply(asked, 0, out, sizeof *out)) {
        return;
    }
    if ((end = fsx_fact_new(FSX_RELEASED, NULL)) != NULL) {
        fsx_asked_note(asked, end, ino, out->opened.fh);
    }
    if ((end = fsx_fact_new(FSX_FORGOTTEN, NULL)) != NULL) {
        end->count = 1;
        fsx_asked_note(asked, end, ino, 0);
    }
}

bool
fsx_asked_create(const struct fsx_asked *asked)
{
    struct fsx_tables *tables = &asked->direct->tables;
    const char *name = asked->body + sizeof(struct fuse_create_in);
    struct created out = {0};
    struct fsx_fact *fact = NULL;
    struct fuse_create_in in;
    struct statx status;
    int64_t backing_id = -1;
    int directory, fd, error = 0;

    if (asked->size <= sizeof in || !fsx_tables_is_writable(tables, fsx_asked_ino(asked)) ||
        (directory = fsx_asked_name(asked, name)) < 0 || !fsx_tables_has_room(tables, directory)) {
        return false;
    }
    memcpy(&in, asked->body, sizeof in);
    fd = openat(directory, name,
                (int)(in.flags & KEPT_FLAGS) | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                in.mode & 07777);
    if (fd < 0) {
        return false; /* Python finds the same, and says what it means */
    }
    error = give_to_caller(asked, directory, fd, in.mode);
    if (error == 0 && statx(fd, "", AT_EMPTY_PATH, FSX_STATX_WANTED, &status) < 0) {
        error = errno;
    }
    if (error == 0) {
        backing_id = join_made(asked, fd, &status);
        fact = backing_id < 0
                   ? NULL
                   : fsx_attributes_met(tables, FSX_CREATED, &status, fsx_asked_ino(asked), name);
        error = fact == NULL ? ENOMEM : 0;
    }
    if (error != 0) { /* the file stays, as it does on any file system that fails there */
        if (backing_id >= 0) {
            fsx_tables_leave(tables, asked->direct->device, status.stx_ino);
        }
        (void)close(fd);
        (void)fsx_asked_reply(asked, error, NULL, 0);
        return true;
    }
    (void)fsx_attributes_entry(tables, &status, &out.entry); /* nobody else knows of it yet */
    fact->uid = asked->head.uid;
    fact->flags = in.flags;
    give_made(asked, fact, &out, fd, backing_id);
    return true;
}

/* Its inode is held until Python has learned of it: else the host would give its number to a new
 * file, which the kernel would take for this one. */
bool
fsx_asked_unlink(const struct fsx_asked *asked)
{
    const char *name = asked->body;
    struct fsx_fact *fact;
    struct statx status;
    int directory, held;

    if (!fsx_tables_is_writable(&asked->direct->tables, fsx_asked_ino(asked)) ||
        (directory = fsx_asked_name(asked, name)) < 0 ||
        (held = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)) < 0) {
        return false;
    }
    if (statx(held, "", AT_EMPTY_PATH, FSX_STATX_WANTED, &status) < 0 || S_ISDIR(status.stx_mode) ||
        !fsx_asked_is_in_tree(asked, &status) ||
        (fact = fsx_fact_new(FSX_UNLINKED, name)) == NULL) {
        (void)close(held);
        return false;
    }
    if (unlinkat(directory, name, 0) < 0) {
        free(fact);
        (void)close(held);
        return false; /* Python finds the same, and says what it means */
    }
    fact->parent = fsx_asked_ino(asked);
    fact->nlink = status.stx_nlink;
    fsx_asked_note(asked, fact, status.stx_ino, (uint64_t)held);
    (void)fsx_asked_reply(asked, 0, NULL, 0);
    return true;
}
