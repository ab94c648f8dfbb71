/* One request, on its way to an answer: what the files that give answers share. */
#ifndef FSX_CHANNEL_ASKED_H
#define FSX_CHANNEL_ASKED_H

#include "channel_direct.h"
#include "channel_wire.h"

#include <sys/stat.h>

struct fsx_asked {
    struct fsx_direct *direct;
    struct fuse_in_header head;
    const char *body;
    size_t size;
    char *room;
};

/* channel_direct.c */

/* Whether the kernel took the answer. */
bool fsx_asked_reply(const struct fsx_asked *asked, int error, const void *body, size_t size);
uint64_t fsx_asked_ino(const struct fsx_asked *asked);
/* A directory's descriptor and the name in it that `name`, the rest of the request, asks for. -1:
 * it is for Python. */
int fsx_asked_name(const struct fsx_asked *asked, const char *name);
bool fsx_asked_is_in_tree(const struct fsx_asked *asked, const struct statx *status);
/* Note a fact that was filled in but for these. */
void fsx_asked_note(const struct fsx_asked *asked, struct fsx_fact *fact, uint64_t ino,
                    uint64_t handle);

/* channel_files.c: false, and nothing was done: the request is for Python. */
bool fsx_asked_open(const struct fsx_asked *asked);
bool fsx_asked_create(const struct fsx_asked *asked);
bool fsx_asked_unlink(const struct fsx_asked *asked);

#endif
