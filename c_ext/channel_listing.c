#include "channel_listing.h"

#include "channel_attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Read from the host at once: about as many names as fit into an answer of a page or more. */
#define READ_BYTES 4096
/* Behind "." and "..", which come last (mount/listing.py). */
#define AFTER_DOT ((UINT64_C(1) << 62) + 0x5AFE)
#define AFTER_DOTS (AFTER_DOT + 1)

/* The kernel's struct linux_dirent64, which no header exports. */
struct record {
    uint64_t ino;
    uint64_t next_offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

struct listing {
    struct fsx_tables *tables;
    struct fsx_journal *journal;
    uint64_t directory;
    int fd;
    char *out;
    size_t used, room;
};

static bool
is_dot_or_dotdot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static bool
has_room(const struct listing *listing, size_t name_length)
{
    return listing->room - listing->used >=
           FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + name_length);
}

static void
add(struct listing *listing, const struct fuse_entry_out *entry, uint64_t ino, uint32_t type,
    uint64_t next_offset, const char *name)
{
    size_t length = strlen(name);
    size_t size = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + length);
    struct fuse_dirent head = {
        .ino = ino, .off = next_offset, .namelen = (uint32_t)length, .type = type};
    char *at = listing->out + listing->used;

    memset(at, 0, size);
    memcpy(at, entry, sizeof *entry);
    memcpy(at + sizeof *entry, &head, FUSE_NAME_OFFSET);
    memcpy(at + FUSE_NAME_OFFSET_DIRENTPLUS, name, length);
    listing->used += size;
}

/* "." and "..": the kernel keeps no inode of these, so they count no lookup. */
static ssize_t
add_dots(struct listing *listing, uint64_t offset)
{
    static const struct fuse_entry_out none;
    struct stat above;

    if (fstatat(listing->fd, "..", &above, 0) < 0) {
        return -1;
    }
    if (offset != AFTER_DOT && offset != AFTER_DOTS && has_room(listing, 1)) {
        add(listing, &none, fsx_nodeid(listing->tables, listing->directory), 4, AFTER_DOT, ".");
        offset = AFTER_DOT;
    }
    if (offset == AFTER_DOT && has_room(listing, 2)) {
        add(listing, &none, fsx_nodeid(listing->tables, above.st_ino), 4, AFTER_DOTS, "..");
    }
    return (ssize_t)listing->used;
}

enum added { ADDED, FULL, UNSURE };

static enum added
add_record(struct listing *listing, const struct record *record)
{
    struct fsx_tables *tables = listing->tables;
    struct fuse_entry_out entry;
    struct fsx_fact *fact;
    struct statx status;

    if (!has_room(listing, strlen(record->name))) {
        return FULL;
    }
    if (statx(listing->fd, record->name, AT_SYMLINK_NOFOLLOW, FSX_STATX_WANTED, &status) < 0) {
        return errno == ENOENT ? ADDED : UNSURE; /* removed since the host listed it */
    }
    if (status.stx_dev_major != tables->dev_major || status.stx_dev_minor != tables->dev_minor) {
        return ADDED; /* another file system is mounted there: not served */
    }
    if (!fsx_attributes_entry(tables, &status, &entry)) {
        return UNSURE;
    }
    fact = fsx_attributes_met(tables, FSX_MET, &status, listing->directory, record->name);
    if (fact == NULL) {
        return UNSURE;
    }
    fsx_journal_note(listing->journal, fact);
    add(listing, &entry, entry.attr.ino, (uint32_t)(status.stx_mode & S_IFMT) >> 12,
        record->next_offset, record->name);
    return ADDED;
}

ssize_t
fsx_listing_read(struct fsx_tables *tables, struct fsx_journal *journal, uint64_t ino,
                 const struct fuse_read_in *asked, char *out)
{
    struct listing listing = {tables, journal, ino, (int)asked->fh, out, 0, asked->size};
    _Alignas(struct record) char buffer[READ_BYTES];
    long got = 0;

    if (asked->offset == AFTER_DOT || asked->offset == AFTER_DOTS) {
        return add_dots(&listing, asked->offset);
    }
    if (lseek(listing.fd, (off_t)asked->offset, SEEK_SET) < 0) {
        return -1;
    }
    while ((got = syscall(SYS_getdents64, listing.fd, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < got;) {
            const struct record *record = (const struct record *)(const void *)(buffer + at);
            enum added added = ADDED;
            at += record->length;
            if (!is_dot_or_dotdot(record->name)) {
                added = add_record(&listing, record);
            }
            if (added == FULL || (added == UNSURE && listing.used != 0)) {
                return (ssize_t)listing.used; /* the rest is asked for again */
            }
            if (added == UNSURE) {
                return -1;
            }
        }
    }
    if (got < 0) {
        return listing.used != 0 ? (ssize_t)listing.used : -1;
    }
    return add_dots(&listing, 0);
}
