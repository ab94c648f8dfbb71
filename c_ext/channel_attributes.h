/* What the kernel is told of an inode. */
#ifndef FSX_CHANNEL_ATTRIBUTES_H
#define FSX_CHANNEL_ATTRIBUTES_H

#include "channel_journal.h"
#include "channel_tables.h"
#include "channel_wire.h"

#include <sys/stat.h>

#define FSX_STATX_WANTED (STATX_BASIC_STATS | STATX_BTIME)

/* Tells an inode from an earlier one of the same number: when it was made. */
uint32_t fsx_attributes_generation(const struct statx *status);

/* The answers to LOOKUP and GETATTR, with `answering` held. False: only Python knows. */
bool fsx_attributes_entry(struct fsx_tables *tables, const struct statx *status,
                          struct fuse_entry_out *entry);
bool fsx_attributes_reply(struct fsx_tables *tables, const struct statx *status,
                          struct fuse_attr_out *out);

/* Remember that the inode stands there; the fact for Python (MET, CREATED), or NULL. */
struct fsx_fact *fsx_attributes_met(struct fsx_tables *tables, enum fsx_fact_kind kind,
                                    const struct statx *status, uint64_t parent, const char *name);

/* Names are mostly looked up in the order in which their files were made, and such files have
 * inodes side by side. After a lookup of `ino`: the next one is likely to be asked for. */
void fsx_attributes_expect_next(struct fsx_tables *tables, uint64_t ino);

/* Bring that one into the host's memory. For who has nothing else to do; the disk may be waited
 * for. False: none is expected, or its name is not known. */
bool fsx_attributes_look_ahead(struct fsx_tables *tables);

#endif
