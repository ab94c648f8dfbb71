#include "channel_awake.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define AT_ONCE INT32_C(0)           /* microseconds that waking up may take */
#define ANY_TIME INT32_C(2000000000) /* the kernel's own default */

void
fsx_awake_open(struct fsx_awake *awake)
{
    atomic_store(&awake->fd, -1);
    atomic_store(&awake->is_held, false);
    (void)pthread_mutex_init(&awake->changing, NULL);
}

void
fsx_awake_close(struct fsx_awake *awake)
{
    int fd = atomic_exchange(&awake->fd, -1);

    if (fd >= 0) {
        (void)close(fd); /* what it says ends with it */
    }
    (void)pthread_mutex_destroy(&awake->changing);
}

int
fsx_awake_want(struct fsx_awake *awake)
{
    int unknown = -1;
    int fd = open("/dev/cpu_dma_latency", O_RDWR | O_CLOEXEC);

    if (fd < 0) {
        return errno;
    }
    if (!atomic_compare_exchange_strong(&awake->fd, &unknown, fd)) {
        (void)close(fd); /* it was wanted already */
    }
    return 0;
}

/* One change at a time: the last one counts, and has to be the one that `is_held` tells of. */
static void
change(struct fsx_awake *awake, bool is_held)
{
    int32_t wanted = is_held ? AT_ONCE : ANY_TIME;

    (void)pthread_mutex_lock(&awake->changing);
    if (atomic_load(&awake->is_held) != is_held) {
        int fd = atomic_load(&awake->fd);
        bool is_said = fd >= 0 && write(fd, &wanted, sizeof wanted) == (ssize_t)sizeof wanted;
        if (fd >= 0 && !is_said) { /* never seen: then never again */
            atomic_store(&awake->fd, -1);
            (void)close(fd);
        }
        atomic_store(&awake->is_held, is_said && is_held);
    }
    (void)pthread_mutex_unlock(&awake->changing);
}

void
fsx_awake_hold(struct fsx_awake *awake, uint64_t now_ns)
{
    if (atomic_load_explicit(&awake->fd, memory_order_relaxed) < 0) {
        return;
    }
    atomic_store(&awake->until_ns, now_ns + (uint64_t)FSX_AWAKE_MS * 1000000);
    if (!atomic_load(&awake->is_held)) {
        change(awake, true);
    }
}

int
fsx_awake_sleep_ms(const struct fsx_awake *awake)
{
    return atomic_load(&awake->is_held) ? FSX_AWAKE_MS : -1;
}

void
fsx_awake_let_go(struct fsx_awake *awake, uint64_t now_ns)
{
    if (atomic_load(&awake->is_held) && now_ns >= atomic_load(&awake->until_ns)) {
        change(awake, false);
    }
}
