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

#endif
