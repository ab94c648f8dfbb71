/* Processors that don't fall asleep while the mount is asked one thing after another. Waking one up
 * takes a virtual machine some 40 microseconds, three times as long as most answers, and whoever
 * asks sleeps until he has his. The kernel lets a program say so: power management's quality of
 * service, /dev/cpu_dma_latency (Documentation/power/pm_qos_interface.rst). It is said for all
 * processors, so only as long as somebody is in a hurry; it ends with the descriptor. */
#ifndef FSX_CHANNEL_AWAKE_H
#define FSX_CHANNEL_AWAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FSX_AWAKE_MS 10 /* after the last request that was in a hurry */

struct fsx_awake {
    atomic_int fd; /* -1: not wanted, or not to be had */
    atomic_bool is_held;
    atomic_ullong until_ns;
    pthread_mutex_t changing;
};

void fsx_awake_open(struct fsx_awake *awake);
void fsx_awake_close(struct fsx_awake *awake);

/* From now on it may be held. 0 or an errno. */
int fsx_awake_want(struct fsx_awake *awake);

/* Somebody is in a hurry at `now_ns` of the monotonic clock. */
void fsx_awake_hold(struct fsx_awake *awake, uint64_t now_ns);

/* How long a thread that waits for requests may sleep, in ms, before it has to ask; -1: for ever.
 */
int fsx_awake_sleep_ms(const struct fsx_awake *awake);

/* Let the processors sleep if nobody was in a hurry for a while. */
void fsx_awake_let_go(struct fsx_awake *awake, uint64_t now_ns);

#endif
