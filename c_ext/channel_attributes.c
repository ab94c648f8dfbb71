#include "channel_attributes.h"

#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

uint32_t
fsx_attributes_generation(const struct statx *status)
{
    uint64_t made =
        (uint64_t)status->stx_btime.tv_sec * 1000000000 + (uint64_t)status->stx_btime.tv_nsec;
    return (uint32_t)(fsx_map_spread(made) >> 16);
}

static void
fill(const struct fsx_tables *tables, const struct statx *status, struct fuse_attr *attr)
{
    *attr = (struct fuse_attr){
        .ino = fsx_nodeid(tables, status->stx_ino),
        .size = status->stx_size,
        .blocks = status->stx_blocks,
        .atime = (uint64_t)status->stx_atime.tv_sec,
        .mtime = (uint64_t)status->stx_mtime.tv_sec,
        .ctime = (uint64_t)status->stx_ctime.tv_sec,
        .atimensec = status->stx_atime.tv_nsec,
        .mtimensec = status->stx_mtime.tv_nsec,
        .ctimensec = status->stx_ctime.tv_nsec,
        .mode = status->stx_mode,
        .nlink = status->stx_nlink,
        .uid = status->stx_uid,
        .gid = status->stx_gid,
        .rdev = (uint32_t)makedev(status->stx_rdev_major, status->stx_rdev_minor),
        .blksize = status->stx_blksize,
    };
    if (attr->blocks == 0 && attr->size != 0 && S_ISREG(status->stx_mode)) {
        attr->blocks = 1; /* a stub: tar and cp take 0 for "all holes" and copy holes */
    }
}

static uint64_t
timeout_ns(struct fsx_tables *tables, const struct statx *status)
{
    return fsx_tables_is_passing(tables, status->stx_ino) ? 0 : tables->timeout_ns;
}

bool
fsx_attributes_entry(struct fsx_tables *tables, const struct statx *status,
                     struct fuse_entry_out *entry)
{
    uint64_t held = timeout_ns(tables, status);

    if (fsx_tables_is_pythons(tables, status->stx_ino)) {
        return false;
    }
    *entry = (struct fuse_entry_out){
        .nodeid = fsx_nodeid(tables, status->stx_ino),
        .generation = fsx_attributes_generation(status),
        .entry_valid = tables->timeout_ns / 1000000000,
        .entry_valid_nsec = (uint32_t)(tables->timeout_ns % 1000000000),
        .attr_valid = held / 1000000000,
        .attr_valid_nsec = (uint32_t)(held % 1000000000),
    };
    fill(tables, status, &entry->attr);
    return true;
}

bool
fsx_attributes_reply(struct fsx_tables *tables, const struct statx *status,
                     struct fuse_attr_out *out)
{
    uint64_t held = timeout_ns(tables, status);

    if (fsx_tables_is_pythons(tables, status->stx_ino)) {
        return false;
    }
    memset(out, 0, sizeof *out);
    out->attr_valid = held / 1000000000;
    out->attr_valid_nsec = (uint32_t)(held % 1000000000);
    fill(tables, status, &out->attr);
    return true;
}

struct fsx_fact *
fsx_attributes_met(struct fsx_tables *tables, enum fsx_fact_kind kind, const struct statx *status,
                   uint64_t parent, const char *name)
{
    struct fsx_fact *fact = fsx_fact_new(kind, name);

    if (fact != NULL) {
        fact->ino = status->stx_ino;
        fact->parent = parent;
        fact->generation = fsx_attributes_generation(status);
        fact->mode = status->stx_mode;
        fact->nlink = status->stx_nlink;
        fsx_tables_name(tables, fact->ino, parent, fact->generation, name);
        fsx_tables_present(tables, parent, name);
    }
    return fact;
}

/* --- ahead of being asked --- */

void
fsx_attributes_expect_next(struct fsx_tables *tables, uint64_t ino)
{
    if (atomic_exchange_explicit(&tables->met, ino, memory_order_relaxed) + 1 == ino) {
        atomic_store_explicit(&tables->ahead, ino + 1, memory_order_relaxed);
    }
}

bool
fsx_attributes_look_ahead(struct fsx_tables *tables)
{
    uint64_t ino = atomic_exchange_explicit(&tables->ahead, 0, memory_order_relaxed);
    char name[FSX_NAME_MAX + 1];
    struct fsx_named found;
    struct statx status;
    bool is_there = false;
    int directory;

    if (ino == 0) {
        return false;
    }
    pthread_rwlock_rdlock(&tables->answering);
    if (tables->is_on && fsx_tables_named(tables, ino, &found, name) &&
        (directory = fsx_tables_directory(tables, found.parent)) >= 0) {
        is_there = statx(directory, name, AT_SYMLINK_NOFOLLOW, FSX_STATX_WANTED, &status) == 0;
    }
    pthread_rwlock_unlock(&tables->answering);
    return is_there;
}
