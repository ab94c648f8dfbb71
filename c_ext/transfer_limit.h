/* A bandwidth limit that all threads of a pool share. */
#ifndef FSX_TRANSFER_LIMIT_H
#define FSX_TRANSFER_LIMIT_H

#include <pthread.h>
#include <stdint.h>

struct fsx_limit {
    pthread_mutex_t mutex;
    int64_t bytes_per_s; /* 0: none */
    int64_t paid_until_ns;
    uint64_t changes; /* so that one who waits by the old limit notices the new one */
};

void fsx_limit_init(struct fsx_limit *limit, int64_t bytes_per_s);
void fsx_limit_destroy(struct fsx_limit *limit);
void fsx_limit_set(struct fsx_limit *limit, int64_t bytes_per_s);

/* Until when (fsx_now_ns) the one who moved `bytes` has to wait, as long as `changes` stays. */
int64_t fsx_limit_charge(struct fsx_limit *limit, int64_t bytes, uint64_t *changes);
uint64_t fsx_limit_changes(struct fsx_limit *limit);

/* CLOCK_MONOTONIC */
int64_t fsx_now_ns(void);

#endif
