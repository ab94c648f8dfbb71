#include "channel_direct.h"

#include "channel_asked.h"
#include "channel_attributes.h"
#include "channel_listing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

bool
fsx_asked_reply(const struct fsx_asked *asked, int error, const void *body, size_t size)
{
    struct fuse_out_header head = {.error = -error, .unique = asked->head.unique};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)body, size}};
    ssize_t written;

    head.len = (uint32_t)(sizeof head + size);
    do {
        written = writev(asked->direct->device, parts, size == 0 ? 1 : 2);
    } while (written < 0 && errno == EINTR);
    return written >= 0;
}

uint64_t
fsx_asked_ino(const struct fsx_asked *asked)
{
    return fsx_nodeid(&asked->direct->tables, asked->head.nodeid);
}

bool
fsx_asked_is_in_tree(const struct fsx_asked *asked, const struct statx *status)
{
    const struct fsx_tables *tables = &asked->direct->tables;

    return status->stx_dev_major == tables->dev_major && status->stx_dev_minor == tables->dev_minor;
}

void
fsx_asked_note(const struct fsx_asked *asked, struct fsx_fact *fact, uint64_t ino, uint64_t handle)
{
    fact->ino = ino;
    fact->handle = handle;
    fsx_journal_note(&asked->direct->journal, fact);
}

int
fsx_asked_name(const struct fsx_asked *asked, const char *name)
{
    const struct fsx_tables *tables = &asked->direct->tables;
    const char *end = asked->body + asked->size;
    uint64_t parent = fsx_asked_ino(asked);

    if (end - name < 2 || end[-1] != '\0' || strlen(name) > FSX_NAME_MAX ||
        (parent == tables->root_ino &&
         strncmp(name, tables->hidden, strlen(tables->hidden)) == 0)) {
        return -1;
    }
    return fsx_tables_directory(tables, parent);
}

/* --- lookup --- */

static bool
say_absent(const struct fsx_asked *asked, int directory, const char *name)
{
    struct fsx_tables *tables = &asked->direct->tables;
    struct fuse_entry_out entry = {0};
    struct stat status;
    uint64_t held;

    if (fstat(directory, &status) < 0 || status.st_nlink == 0) {
        return false; /* it was removed behind the mount: the kernel shall look for another one */
    }
    held = fsx_tables_absent(tables, fsx_asked_ino(asked), name);
    if (held == 0) {
        (void)fsx_asked_reply(asked, ENOENT, NULL, 0);
        return true;
    }
    entry.entry_valid = held / 1000000000;
    entry.entry_valid_nsec = (uint32_t)(held % 1000000000);
    (void)fsx_asked_reply(asked, 0, &entry, sizeof entry);
    return true;
}

static bool
lookup(const struct fsx_asked *asked)
{
    struct fsx_direct *direct = asked->direct;
    struct fsx_tables *tables = &direct->tables;
    const char *name = asked->body;
    uint64_t parent = fsx_asked_ino(asked);
    int directory = fsx_asked_name(asked, name);
    struct fuse_entry_out entry;
    struct statx status;
    struct fsx_fact *fact;

    if (directory < 0) {
        return false;
    }
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW, FSX_STATX_WANTED, &status) < 0) {
        return errno == ENOENT && say_absent(asked, directory, name);
    }
    if (!fsx_asked_is_in_tree(asked, &status) || !fsx_attributes_entry(tables, &status, &entry) ||
        (fact = fsx_attributes_met(tables, FSX_MET, &status, parent, name)) == NULL) {
        return false;
    }
    fsx_journal_note(&direct->journal, fact);
    fsx_attributes_expect_next(tables, status.stx_ino);
    if (!fsx_asked_reply(asked, 0, &entry, sizeof entry) &&
        (fact = fsx_fact_new(FSX_FORGOTTEN, NULL)) != NULL) { /* it was not counted */
        fact->count = 1;
        fsx_asked_note(asked, fact, status.stx_ino, 0);
    }
    return true;
}

static bool
forget_one(const struct fsx_asked *asked, uint64_t nodeid, uint64_t count)
{
    struct fsx_fact *fact = fsx_fact_new(FSX_FORGOTTEN, NULL);

    if (fact == NULL) {
        return false;
    }
    fact->count = count;
    fsx_asked_note(asked, fact, fsx_nodeid(&asked->direct->tables, nodeid), 0);
    return true;
}

/* Nobody waits for an answer; what there is no memory for stays in Python's table. */
static bool
forget(const struct fsx_asked *asked)
{
    struct fuse_batch_forget_in batch;
    struct fuse_forget_in single;
    struct fuse_forget_one one;

    if (asked->head.opcode == FUSE_FORGET) {
        if (asked->size < sizeof single) {
            return false;
        }
        memcpy(&single, asked->body, sizeof single);
        return forget_one(asked, asked->head.nodeid, single.nlookup);
    }
    if (asked->size < sizeof batch) {
        return false;
    }
    memcpy(&batch, asked->body, sizeof batch);
    if (asked->size < sizeof batch + batch.count * sizeof one) {
        return false;
    }
    for (uint32_t i = 0; i < batch.count; i++) {
        memcpy(&one, asked->body + sizeof batch + i * sizeof one, sizeof one);
        (void)forget_one(asked, one.nodeid, one.nlookup);
    }
    return true;
}

/* --- attributes --- */

/* Look at the inode where its name is remembered to be. False if it is not there. */
static bool
look_by_name(const struct fsx_asked *asked, struct statx *status)
{
    struct fsx_tables *tables = &asked->direct->tables;
    uint64_t ino = fsx_asked_ino(asked);
    int fd = fsx_tables_directory(tables, ino);
    char name[FSX_NAME_MAX + 1];
    struct fsx_named found;

    if (fd >= 0) {
        return statx(fd, "", AT_EMPTY_PATH, FSX_STATX_WANTED, status) == 0 &&
               status->stx_nlink != 0;
    }
    return fsx_tables_named(tables, ino, &found, name) &&
           (fd = fsx_tables_directory(tables, found.parent)) >= 0 &&
           statx(fd, name, AT_SYMLINK_NOFOLLOW, FSX_STATX_WANTED, status) == 0 &&
           status->stx_ino == ino && fsx_asked_is_in_tree(asked, status) &&
           fsx_attributes_generation(status) == found.generation;
}

static bool
getattr(const struct fsx_asked *asked)
{
    struct fsx_tables *tables = &asked->direct->tables;
    struct fuse_getattr_in in;
    struct fuse_attr_out out;
    struct statx status;

    if (asked->size < sizeof in) {
        return false;
    }
    memcpy(&in, asked->body, sizeof in);
    if (in.getattr_flags & FUSE_GETATTR_FH) { /* sent for files only */
        if (statx(fsx_fh_fd(in.fh), "", AT_EMPTY_PATH, FSX_STATX_WANTED, &status) < 0) {
            return false;
        }
    }
    else if (!look_by_name(asked, &status)) {
        return false;
    }
    return fsx_attributes_reply(tables, &status, &out) &&
           fsx_asked_reply(asked, 0, &out, sizeof out);
}

/* close(2), and the end of a handle: nothing is to be refused, so nobody has to wait for Python. */
static bool
end_handle(const struct fsx_asked *asked, enum fsx_fact_kind kind)
{
    struct fsx_fact *fact;
    uint64_t handle;

    if (asked->size < sizeof handle || (fact = fsx_fact_new(kind, NULL)) == NULL) {
        return false;
    }
    memcpy(&handle, asked->body, sizeof handle); /* the first field of each of these requests */
    fsx_asked_note(asked, fact, fsx_asked_ino(asked), handle);
    (void)fsx_asked_reply(asked, 0, NULL, 0);
    return true;
}

/* --- directories --- */

static bool
open_directory(const struct fsx_asked *asked)
{
    struct fsx_direct *direct = asked->direct;
    uint64_t ino = fsx_asked_ino(asked);
    int fd = fsx_tables_directory(&direct->tables, ino);
    struct fuse_open_out out = {0};
    struct fsx_fact *fact;
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0 || status.st_nlink == 0 ||
        (fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        return false;
    }
    fact = fsx_fact_new(FSX_OPENED_DIRECTORY, NULL);
    if (fact == NULL) {
        (void)close(fd);
        return false;
    }
    out.fh = (uint64_t)fd;
    fsx_asked_note(asked, fact, ino, out.fh);
    if (!fsx_asked_reply(asked, 0, &out, sizeof out) &&
        (fact = fsx_fact_new(FSX_RELEASED_DIRECTORY, NULL)) != NULL) {
        fsx_asked_note(asked, fact, ino, out.fh);
    }
    return true;
}

static bool
read_directory(const struct fsx_asked *asked)
{
    struct fsx_direct *direct = asked->direct;
    struct fuse_read_in in;
    ssize_t size;

    if (asked->size < sizeof in || asked->head.nodeid == 1) { /* the root may hide names */
        return false;
    }
    memcpy(&in, asked->body, sizeof in);
    if (in.size > FSX_CHANNEL_MESSAGE) {
        in.size = FSX_CHANNEL_MESSAGE;
    }
    size =
        fsx_listing_read(&direct->tables, &direct->journal, fsx_asked_ino(asked), &in, asked->room);
    return size >= 0 && (fsx_asked_reply(asked, 0, asked->room, (size_t)size), true);
}

/* --- the door --- */

static bool
answer(const struct fsx_asked *asked)
{
    switch (asked->head.opcode) {
    case FUSE_LOOKUP:
        return lookup(asked);
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        return forget(asked);
    case FUSE_GETATTR:
        return getattr(asked);
    case FUSE_OPEN:
        return fsx_asked_open(asked);
    case FUSE_CREATE:
        return fsx_asked_create(asked);
    case FUSE_UNLINK:
        return fsx_asked_unlink(asked);
    case FUSE_FLUSH:
        return end_handle(asked, FSX_FLUSHED);
    case FUSE_RELEASE:
        return end_handle(asked, FSX_RELEASED);
    case FUSE_OPENDIR:
        return open_directory(asked);
    case FUSE_READDIRPLUS:
        return read_directory(asked);
    default:
        return end_handle(asked, FSX_RELEASED_DIRECTORY);
    }
}

/* How far Python may be behind for a request to be answered here; 0: it is not for us. What only
 * ends something never is too much. */
static size_t
most_facts(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        return SIZE_MAX;
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case FUSE_READDIRPLUS:
        return FSX_JOURNAL_MANY;
    case FUSE_OPEN:
    case FUSE_CREATE:
    case FUSE_UNLINK:
    case FUSE_OPENDIR:
        return FSX_JOURNAL_MANY_OPEN;
    default:
        return 0;
    }
}

bool
fsx_direct_answer(struct fsx_direct *direct, const char *request, size_t length, char *room)
{
    struct fsx_asked asked = {
        direct, {0}, request + sizeof asked.head, length - sizeof asked.head, room};
    bool answered = false;
    uint64_t since;
    size_t most;

    memcpy(&asked.head, request, sizeof asked.head);
    most = most_facts(asked.head.opcode);
    if (most == 0) {
        return false;
    }
    since = fsx_counts_now();
    pthread_rwlock_rdlock(&direct->tables.answering);
    if (direct->tables.is_on && atomic_load(&direct->journal.count) < most) {
        answered = answer(&asked);
    }
    pthread_rwlock_unlock(&direct->tables.answering);
    if (answered) {
        atomic_fetch_add_explicit(&direct->answered, 1, memory_order_relaxed);
        fsx_counts_note(&direct->counts, asked.head.opcode, since);
    }
    return answered;
}

int
fsx_direct_open(struct fsx_direct *direct, int device, const char *stub_xattr)
{
    int error;

    direct->device = device;
    direct->stub_xattr = stub_xattr;
    error = fsx_journal_open(&direct->journal);
    if (error == 0) {
        fsx_tables_open(&direct->tables);
    }
    return error;
}

void
fsx_direct_close(struct fsx_direct *direct)
{
    fsx_tables_close(&direct->tables);
    fsx_journal_close(&direct->journal);
}
