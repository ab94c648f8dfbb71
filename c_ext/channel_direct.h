/* Requests that need no decision, answered without libfuse and Python: names, attributes and
 * listings of the tree, opening resident files for reading, and the ends of handles. What Python
 * has to know of it is noted in the journal. In any doubt a request is left to Python. */
#ifndef FSX_CHANNEL_DIRECT_H
#define FSX_CHANNEL_DIRECT_H

#include "channel_counts.h"
#include "channel_journal.h"
#include "channel_tables.h"

struct fsx_direct {
    int device;
    const char *stub_xattr;
    struct fsx_tables tables;
    struct fsx_journal journal;
    atomic_ullong answered;
    struct fsx_counts counts;
};

/* 0 or an errno. */
int fsx_direct_open(struct fsx_direct *direct, int device, const char *stub_xattr);
void fsx_direct_close(struct fsx_direct *direct);

/* False: the request is somebody else's. `room`: FSX_CHANNEL_MESSAGE bytes for the answer. */
bool fsx_direct_answer(struct fsx_direct *direct, const char *request, size_t length, char *room);

#endif
