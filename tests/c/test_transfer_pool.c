/* transfer_pool.c without Python, for ASan, UBSan and TSan: what the tests in Python can't arrange.
 * A name server that hangs is this program's own getaddrinfo, which libcurl finds first. */
#include "transfer_pool.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
#define ROUNDS 2000
#define CAPACITY 64

static int hang[2]; /* a pipe: getaddrinfo returns when it is closed */
static atomic_int hanging;

__attribute__((visibility("default"))) int
getaddrinfo(const char *restrict node, const char *restrict service,
            const struct addrinfo *restrict hints, struct addrinfo **restrict result)
{
    char nothing;
    ssize_t ignored;

    (void)node, (void)service, (void)hints, (void)result;
    atomic_fetch_add(&hanging, 1);
    ignored = read(hang[0], &nothing, 1);
    (void)ignored;
    atomic_fetch_sub(&hanging, 1);
    return EAI_AGAIN;
}

static void
require(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "FAILED: %s\n", what);
        exit(1);
    }
}

static struct fsx_pool *
new_pool(void)
{
    struct fsx_transfer_settings settings = {
        .connect_timeout_ms = 3600 * 1000, .low_speed_s = 0, .buffer_bytes = 65536};
    struct fsx_pool *pool = fsx_pool_new(THREADS, CAPACITY, &settings, 0, 0);
    require(pool != NULL, "there is a pool");
    return pool;
}

static bool
submit(struct fsx_pool *pool, const char *url, uint64_t *id)
{
    struct fsx_job *job = fsx_job_new("GET", url, NULL);
    require(job != NULL, "there is memory");
    if (fsx_pool_submit(pool, job, id) == FSX_POOL_OK) {
        return true;
    }
    fsx_job_free(job);
    return false;
}

static bool
submit_in_lane(struct fsx_pool *pool, const char *url, uint64_t lane, size_t at_once, uint64_t *id)
{
    struct fsx_job *job = fsx_job_new("GET", url, NULL);
    size_t taken;

    require(job != NULL, "there is memory");
    taken = fsx_pool_submit_many(pool, &job, 1, id, lane, at_once);
    require((taken == 1) == (job == NULL), "what is taken over is the pool's");
    fsx_job_free(job);
    return taken == 1;
}

/* Wait for something that is done, and forget it; how many. */
static size_t
collect(struct fsx_pool *pool, enum fsx_transfer_error expected)
{
    struct pollfd done = {.fd = fsx_pool_event_fd(pool), .events = POLLIN};
    size_t count = 0;

    require(poll(&done, 1, 30000) == 1, "something is done within half a minute");
    for (struct fsx_job *job = fsx_pool_collect(pool), *next; job != NULL; job = next) {
        next = job->next;
        require(job->error == expected, job->message);
        fsx_pool_forget(pool, job);
        count++;
    }
    return count;
}

static void
a_name_server_that_hangs_is_left_at_once(bool by_close)
{
    struct fsx_pool *pool = new_pool();
    uint64_t id = 0;

    require(submit(pool, "http://slow.invalid/", &id), "it is queued");
    while (atomic_load(&hanging) == 0) {
        (void)sched_yield();
    }
    if (by_close) {
        fsx_pool_close(pool);
    }
    else {
        require(fsx_pool_cancel(pool, id, false), "it was not done");
    }
    require(collect(pool, FSX_TRANSFER_CANCELLED) == 1, "it is cancelled");
    require(atomic_load(&hanging) == 1, "while the name server still hangs");
    fsx_pool_free(pool);
    require(write(hang[1], "", 1) == 1, "it may go on");
    while (atomic_load(&hanging) != 0) {
        (void)sched_yield();
    }
}

struct crowd {
    struct fsx_pool *pool;
    atomic_bool is_over;
    atomic_uint_fast64_t last_id;
};

static void *
cancel_all_the_time(void *argument)
{
    struct crowd *crowd = argument;
    while (!atomic_load(&crowd->is_over)) {
        uint64_t id = atomic_load(&crowd->last_id);
        (void)fsx_pool_cancel(crowd->pool, id, id % 2 == 0);
        (void)fsx_pool_stats(crowd->pool);
        fsx_pool_set_limits(crowd->pool, (int64_t)(id % 2) * 1000000, 0);
        (void)fsx_pool_submit_many(crowd->pool, NULL, 0, NULL, 1, id % 3);
    }
    return NULL;
}

/* Jobs that fail before they connect, submitted, cancelled and collected at the same time: every
 * one comes back once. */
static void
a_crowd_loses_no_job(void)
{
    struct crowd crowd = {.pool = new_pool()};
    pthread_t canceller;
    size_t submitted = 0, collected = 0;

    require(pthread_create(&canceller, NULL, cancel_all_the_time, &crowd) == 0, "a thread");
    while (submitted < ROUNDS) {
        uint64_t id = 0;
        if (submitted % 2 == 0
                ? submit(crowd.pool, "ftp://127.0.0.1/", &id)
                : submit_in_lane(crowd.pool, "ftp://127.0.0.1/", submitted % 5, 1, &id)) {
            atomic_store(&crowd.last_id, id);
            submitted++;
            continue;
        }
        for (struct fsx_job *job = fsx_pool_collect(crowd.pool), *next; job != NULL; job = next) {
            next = job->next;
            require(job->error == FSX_TRANSFER_OTHER || job->error == FSX_TRANSFER_CANCELLED,
                    job->message);
            fsx_pool_forget(crowd.pool, job);
            collected++;
        }
    }
    fsx_pool_close(crowd.pool);
    atomic_store(&crowd.is_over, true);
    pthread_join(canceller, NULL);
    for (struct fsx_job *job = fsx_pool_collect(crowd.pool), *next; job != NULL; job = next) {
        next = job->next;
        fsx_pool_forget(crowd.pool, job);
        collected++;
    }
    require(collected == ROUNDS, "every job comes back once");
    fsx_pool_free(crowd.pool);
}

/* Of those that hang one is under way, and the others are neither lost nor in anybody's way. */
static void
a_lane_holds_back(void)
{
    struct fsx_pool *pool = new_pool();
    uint64_t ids[6], other = 0;

    for (size_t i = 0; i < 6; i++) {
        require(submit_in_lane(pool, "http://slow.invalid/", 7, 1, &ids[i]), "it is queued");
    }
    while (atomic_load(&hanging) == 0) {
        (void)sched_yield();
    }
    require(fsx_pool_stats(pool).running == 1 && fsx_pool_stats(pool).waiting == 5, "one at once");
    require(!fsx_pool_cancel(pool, ids[0], true), "it is let in");
    require(fsx_pool_cancel(pool, ids[3], true), "it is held");
    require(collect(pool, FSX_TRANSFER_CANCELLED) == 1, "and over");
    require(submit(pool, "ftp://127.0.0.1/", &other), "another one");
    require(collect(pool, FSX_TRANSFER_OTHER) == 1, "waits for none of them");
    require(fsx_pool_submit_many(pool, NULL, 0, NULL, 7, 2) == 0, "one more may be under way");
    while (atomic_load(&hanging) < 2) {
        (void)sched_yield();
    }
    require(fsx_pool_stats(pool).running == 2 && fsx_pool_stats(pool).waiting == 3, "two at once");
    require(fsx_pool_cancel(pool, ids[0], false), "the first is ended");
    require(collect(pool, FSX_TRANSFER_CANCELLED) == 1, "and over");
    while (atomic_load(&hanging) < 3) { /* the name server still has it */
        (void)sched_yield();
    }
    require(fsx_pool_stats(pool).running == 2 && fsx_pool_stats(pool).waiting == 2, "the next one");
    fsx_pool_free(pool);
    require(write(hang[1], "...", 3) == 3, "they may go on");
    while (atomic_load(&hanging) != 0) {
        (void)sched_yield();
    }
}

int
main(void)
{
    require(pipe(hang) == 0 && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "a start");
    a_name_server_that_hangs_is_left_at_once(false);
    a_name_server_that_hangs_is_left_at_once(true);
    a_lane_holds_back();
    a_crowd_loses_no_job();
    curl_global_cleanup();
    printf("transfer_pool: all held\n");
    return 0;
}
