#include "channel_pending.h"

#include <linux/fuse.h>
#include <stdlib.h>

struct fsx_pending_one {
    struct fsx_pending_one *next;
    uint64_t unique;
    uint32_t opcode, pid;
    bool is_given_up;
};

static struct fsx_pending_one **
bucket(struct fsx_pending *pending, uint64_t unique)
{
    /* The kernel counts in steps of two, and from a start of its own on each processor. */
    return &pending->buckets[unique / 2 % FSX_PENDING_BUCKETS];
}

void
fsx_pending_open(struct fsx_pending *pending)
{
    pthread_mutex_init(&pending->mutex, NULL);
}

void
fsx_pending_close(struct fsx_pending *pending)
{
    for (size_t i = 0; i < FSX_PENDING_BUCKETS; i++) {
        struct fsx_pending_one *one = pending->buckets[i];
        while (one != NULL) {
            struct fsx_pending_one *next = one->next;
            free(one);
            one = next;
        }
    }
    pthread_mutex_destroy(&pending->mutex);
}

/* Where it hangs, or would; with the mutex held. */
static struct fsx_pending_one **
place(struct fsx_pending *pending, uint64_t unique)
{
    struct fsx_pending_one **found = bucket(pending, unique);

    while (*found != NULL && (*found)->unique != unique) {
        found = &(*found)->next;
    }
    return found;
}

bool
fsx_pending_add(struct fsx_pending *pending, uint64_t unique, uint32_t opcode, uint32_t pid)
{
    struct fsx_pending_one *one = calloc(1, sizeof *one);

    if (one == NULL) {
        return false;
    }
    one->unique = unique;
    one->opcode = opcode;
    one->pid = pid;
    pthread_mutex_lock(&pending->mutex);
    one->next = *bucket(pending, unique);
    *bucket(pending, unique) = one;
    atomic_fetch_add(&pending->count, 1);
    pthread_mutex_unlock(&pending->mutex);
    return true;
}

uint32_t
fsx_pending_take(struct fsx_pending *pending, uint64_t unique, bool *is_given_up)
{
    struct fsx_pending_one **found, *one;
    uint32_t opcode = 0;

    *is_given_up = false;
    /* Who answers has read the request from the relay, which had added it before. */
    if (atomic_load(&pending->count) == 0) {
        return 0;
    }
    pthread_mutex_lock(&pending->mutex);
    found = place(pending, unique);
    one = *found;
    if (one != NULL) {
        *found = one->next;
        opcode = one->opcode;
        *is_given_up = one->is_given_up;
        atomic_fetch_sub(&pending->count, 1);
    }
    pthread_mutex_unlock(&pending->mutex);
    free(one);
    return opcode;
}

uint32_t
fsx_pending_waits(struct fsx_pending *pending, uint64_t unique)
{
    const struct fsx_pending_one *one;
    uint32_t pid;

    pthread_mutex_lock(&pending->mutex);
    one = *place(pending, unique);
    pid = one == NULL || one->is_given_up || one->opcode != FUSE_OPEN ? 0 : one->pid;
    pthread_mutex_unlock(&pending->mutex);
    return pid;
}

bool
fsx_pending_give_up(struct fsx_pending *pending, uint64_t unique)
{
    struct fsx_pending_one *one;
    bool is_first;

    pthread_mutex_lock(&pending->mutex);
    one = *place(pending, unique);
    is_first = one != NULL && !one->is_given_up;
    if (is_first) {
        one->is_given_up = true;
    }
    pthread_mutex_unlock(&pending->mutex);
    return is_first;
}
