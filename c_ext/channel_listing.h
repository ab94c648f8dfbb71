/* READDIRPLUS: names and what they name. */
#ifndef FSX_CHANNEL_LISTING_H
#define FSX_CHANNEL_LISTING_H

#include "channel_journal.h"
#include "channel_tables.h"
#include "channel_wire.h"

#include <sys/types.h>

/* Fill in as many entries as `asked->size` bytes at `out` take, from `asked->offset` on, of the
 * directory `ino` that is open as `asked->fh`. How many bytes, 0 at the end; -1: ask Python. With
 * `answering` held. */
ssize_t fsx_listing_read(struct fsx_tables *tables, struct fsx_journal *journal, uint64_t ino,
                         const struct fuse_read_in *asked, char *out);

#endif
