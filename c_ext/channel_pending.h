/* Requests whose answer the channel wants to see: their number and kind. Any thread. */
#ifndef FSX_CHANNEL_PENDING_H
#define FSX_CHANNEL_PENDING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FSX_PENDING_BUCKETS 256

struct fsx_pending {
    pthread_mutex_t mutex;
    atomic_size_t count; /* read without the mutex: most answers come while nothing is pending */
    struct fsx_pending_one *buckets[FSX_PENDING_BUCKETS];
};

void fsx_pending_open(struct fsx_pending *pending);
void fsx_pending_close(struct fsx_pending *pending);

/* False if there is no memory. `pid`: the thread that waits for the answer. */
bool fsx_pending_add(struct fsx_pending *pending, uint64_t unique, uint32_t opcode, uint32_t pid);

/* The opcode, once; 0 if it is none of these. `*is_given_up` if nobody wants the answer. */
uint32_t fsx_pending_take(struct fsx_pending *pending, uint64_t unique, bool *is_given_up);

/* Who waits for an OPEN, which alone may take as long as the repository; 0: nobody any more. */
uint32_t fsx_pending_waits(struct fsx_pending *pending, uint64_t unique);

/* Nobody wants the answer any more. False if it was given, or given up before. */
bool fsx_pending_give_up(struct fsx_pending *pending, uint64_t unique);

#endif
