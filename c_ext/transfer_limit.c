#include "transfer_limit.h"

#include <time.h>

#define NS_PER_S INT64_C(1000000000)
/* Credit for what was not used lately: timers wake late, and that time would be lost. */
#define CREDIT_NS (NS_PER_S / 20)

int64_t
fsx_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void
fsx_limit_init(struct fsx_limit *limit, int64_t bytes_per_s)
{
    pthread_mutex_init(&limit->mutex, NULL);
    limit->bytes_per_s = bytes_per_s;
    limit->paid_until_ns = 0;
    limit->changes = 0;
}

void
fsx_limit_destroy(struct fsx_limit *limit)
{
    pthread_mutex_destroy(&limit->mutex);
}

void
fsx_limit_set(struct fsx_limit *limit, int64_t bytes_per_s)
{
    pthread_mutex_lock(&limit->mutex);
    limit->bytes_per_s = bytes_per_s;
    limit->paid_until_ns = 0;
    limit->changes++;
    pthread_mutex_unlock(&limit->mutex);
}

int64_t
fsx_limit_charge(struct fsx_limit *limit, int64_t bytes, uint64_t *changes)
{
    int64_t until = 0;

    pthread_mutex_lock(&limit->mutex);
    *changes = limit->changes;
    if (limit->bytes_per_s > 0) {
        int64_t earliest = fsx_now_ns() - CREDIT_NS;
        if (limit->paid_until_ns < earliest) {
            limit->paid_until_ns = earliest;
        }
        /* `bytes` is at most a buffer, megabytes: a double has digits to spare, int64_t has not. */
        limit->paid_until_ns += (int64_t)((double)bytes / (double)limit->bytes_per_s * NS_PER_S);
        until = limit->paid_until_ns;
    }
    pthread_mutex_unlock(&limit->mutex);
    return until;
}

uint64_t
fsx_limit_changes(struct fsx_limit *limit)
{
    uint64_t changes;
    pthread_mutex_lock(&limit->mutex);
    changes = limit->changes;
    pthread_mutex_unlock(&limit->mutex);
    return changes;
}
