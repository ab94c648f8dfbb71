#include "channel_requests.h"

#include "channel_attributes.h"
#include "channel_wire.h"

#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define SOON_NS UINT64_C(150000)  /* after an answer, waking up included: somebody is in a hurry */
#define LOOKED_NS UINT64_C(50000) /* no longer than waking up takes */
#define MOST_CREDIT 16
#define MISSED 4
/* Every request wakes a thread that sleeps for requests, also where one that looks takes it first,
 * which has to wait for the end of that. Who woke in vain leaves the next ones to that one for so
 * long, and for as long again while it takes some. */
#define LOST_NS 500000L

static void
pause_ns(long ns)
{
    struct timespec time = {.tv_nsec = ns};
    (void)nanosleep(&time, NULL);
}

int
fsx_requests_wait(const struct fsx_channel *channel)
{
    struct epoll_event request = {.events = EPOLLIN | EPOLLEXCLUSIVE}, stop = {.events = EPOLLIN};
    int waiting = epoll_create1(EPOLL_CLOEXEC);

    if (waiting >= 0 && (epoll_ctl(waiting, EPOLL_CTL_ADD, channel->device, &request) < 0 ||
                         epoll_ctl(waiting, EPOLL_CTL_ADD, channel->stop_fd, &stop) < 0)) {
        int error = errno;
        (void)close(waiting);
        errno = error;
        return -1;
    }
    return waiting;
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* An application that does one thing after another asks again a few microseconds after each answer,
 * and waking up an idle processor takes longer than to answer. So after an answer one thread looks
 * for a while before it sleeps, as long as that pays. What is likely to be asked for next it brings
 * into memory meanwhile. */
static bool
looks_again(struct fsx_channel *channel, struct fsx_reader *reader, char *buffer, ssize_t *got)
{
    uint64_t until;

    if (reader->credit <= 0 || atomic_exchange(&channel->is_looking, true)) {
        return false;
    }
    until = now_ns() + LOOKED_NS;
    (void)fsx_attributes_look_ahead(&channel->direct.tables);
    do {
        (void)sched_yield(); /* whoever has something to do goes first */
        *got = read(channel->device, buffer, FSX_CHANNEL_MESSAGE);
    } while (*got < 0 && errno == EAGAIN && !atomic_load(&channel->is_stopping) &&
             now_ns() < until);
    atomic_store(&channel->is_looking, false);
    if (*got < 0) {
        reader->credit -= MISSED;
    }
    return *got >= 0;
}

/* Nobody wakes us up meanwhile. True: others are at it. */
static bool
leaves_to_others(struct fsx_channel *channel)
{
    unsigned long before = atomic_load(&channel->taken);

    pause_ns(LOST_NS);
    return atomic_load(&channel->taken) != before;
}

/* A request that followed the last answer at once. */
static void
is_soon(struct fsx_channel *channel, struct fsx_reader *reader, uint64_t now)
{
    if (reader->credit < MOST_CREDIT) {
        reader->credit++;
    }
    else {
        fsx_awake_hold(&channel->awake, now);
    }
}

size_t
fsx_requests_next(struct fsx_channel *channel, struct fsx_reader *reader, char *buffer)
{
    uint64_t since = now_ns();
    struct epoll_event event;
    bool is_woken = false, may_look = true; /* who has just answered; who slept is one too many */

    while (!atomic_load(&channel->is_stopping)) {
        ssize_t got = read(channel->device, buffer, FSX_CHANNEL_MESSAGE);
        if (got < 0 && errno == EAGAIN && may_look) {
            (void)looks_again(channel, reader, buffer, &got);
        }
        if (got >= (ssize_t)sizeof(struct fuse_in_header)) {
            uint64_t now = now_ns();
            atomic_fetch_add(&channel->taken, 1);
            if (now - since < SOON_NS) {
                is_soon(channel, reader, now);
            }
            return (size_t)got;
        }
        if (got >= 0) {
            return 0; /* never seen; no request is that short */
        }
        switch (errno) {
        case EAGAIN:
            may_look = false;
            if (is_woken) {
                is_woken = leaves_to_others(channel);
            }
            else {
                (void)epoll_wait(reader->waiting, &event, 1, /* EINTR: looked again */
                                 fsx_awake_sleep_ms(&channel->awake));
                fsx_awake_let_go(&channel->awake, now_ns());
                is_woken = true;
            }
            break;
        case EINTR:
        case ENOENT: /* who asked was killed before we had read it */
            break;
        case ENOMEM:
            pause_ns(1000000);
            break;
        default: /* ENODEV, ECONNABORTED: unmounted, aborted */
            return 0;
        }
    }
    return 0;
}
