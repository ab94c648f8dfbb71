#include "channel_pending.h"

#include <stdlib.h>

struct fsx_pending_one {
    struct fsx_pending_one *next;
    uint64_t unique;
    uint32_t opcode;
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

bool
fsx_pending_add(struct fsx_pending *pending, uint64_t unique, uint32_t opcode)
{
    struct fsx_pending_one *one = malloc(sizeof *one);

    if (one == NULL) {
        return false;
    }
    one->unique = unique;
    one->opcode = opcode;
    pthread_mutex_lock(&pending->mutex);
    one->next = *bucket(pending, unique);
    *bucket(pending, unique) = one;
    atomic_fetch_add(&pending->count, 1);
    pthread_mutex_unlock(&pending->mutex);
    return true;
}

uint32_t
fsx_pending_take(struct fsx_pending *pending, uint64_t unique)
{
    struct fsx_pending_one **place, *one;
    uint32_t opcode = 0;

    /* Who answers has read the request from the relay, which had added it before. */
    if (atomic_load(&pending->count) == 0) {
        return 0;
    }
    pthread_mutex_lock(&pending->mutex);
    place = bucket(pending, unique);
    while (*place != NULL && (*place)->unique != unique) {
        place = &(*place)->next;
    }
    one = *place;
    if (one != NULL) {
        *place = one->next;
        opcode = one->opcode;
        atomic_fetch_sub(&pending->count, 1);
    }
    pthread_mutex_unlock(&pending->mutex);
    free(one);
    return opcode;
}
