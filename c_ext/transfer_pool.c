#include "transfer_pool.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct fsx_worker {
    struct fsx_pool *pool;
    struct fsx_wire wire;
    pthread_t thread;
    pthread_cond_t called;
    bool is_called;
    struct fsx_worker *next_idle;
};

struct fsx_pool {
    struct fsx_transfer_shared shared;
    int event_fd;
    pthread_mutex_t mutex; /* for all below, and for the jobs' state; never held for long */
    pthread_cond_t closed;
    bool is_closing, is_closed;
    struct fsx_queue queue;
    struct fsx_worker *workers;
    size_t worker_count, threads;
    /* A stack: who worked last has the warm connection. */
    struct fsx_worker *idle;
};

/* --- with the mutex held --- */

static void
signal_done(struct fsx_pool *pool)
{
    uint64_t one = 1;
    ssize_t ignored = write(pool->event_fd, &one, sizeof one);
    (void)ignored; /* EAGAIN: it is readable anyway */
}

static void
finish(struct fsx_pool *pool, struct fsx_job *job)
{
    bool was_empty = pool->queue.done.first == NULL;

    fsx_queue_finish(&pool->queue, job);
    if (was_empty) { /* else it is readable already */
        signal_done(pool);
    }
}

static void
call_idle_worker(struct fsx_pool *pool)
{
    struct fsx_worker *worker = pool->idle;

    if (worker != NULL) {
        pool->idle = worker->next_idle;
        worker->is_called = true;
        pthread_cond_signal(&worker->called);
    }
}

static void
cancel(struct fsx_pool *pool, struct fsx_job *job)
{
    atomic_store(&job->cancelled, true);
    if (job->state == FSX_JOB_WAITING) {
        fsx_job_close_fd(job);
        fsx_job_fail(job, FSX_TRANSFER_CANCELLED, "cancelled");
        finish(pool, job);
        if (fsx_queue_has_waiting(&pool->queue)) { /* its lane may have let another one in */
            call_idle_worker(pool);
        }
    }
    else {
        fsx_wire_wake(&job->worker->wire);
    }
}

/* --- a worker --- */

static void *
work(void *argument)
{
    struct fsx_worker *worker = argument;
    struct fsx_pool *pool = worker->pool;

    pthread_mutex_lock(&pool->mutex);
    while (!pool->is_closing) {
        struct fsx_job *job = fsx_queue_take_next(&pool->queue);
        if (job == NULL) {
            worker->next_idle = pool->idle;
            pool->idle = worker;
            worker->is_called = false;
            while (!worker->is_called) {
                pthread_cond_wait(&worker->called, &pool->mutex);
            }
            continue;
        }
        job->worker = worker;
        if (fsx_queue_has_waiting(&pool->queue)) { /* who put in many woke one of us up */
            call_idle_worker(pool);
        }
        pthread_mutex_unlock(&pool->mutex);
        fsx_wire_run(&worker->wire, job);
        pthread_mutex_lock(&pool->mutex);
        finish(pool, job);
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static int
start_worker(struct fsx_pool *pool, struct fsx_worker *worker)
{
    sigset_t all, before;
    int error;

    worker->pool = pool;
    if (fsx_wire_open(&worker->wire, &pool->shared) < 0) {
        fsx_wire_close(&worker->wire);
        return ENOMEM;
    }
    pthread_cond_init(&worker->called, NULL);
    sigfillset(&all); /* signals are for Python's main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pthread_cond_destroy(&worker->called);
        fsx_wire_close(&worker->wire);
        return error;
    }
    (void)pthread_setname_np(worker->thread, "fsx-transfer"); /* for top -H */
    return 0;
}

/* --- the pool --- */

struct fsx_pool *
fsx_pool_new(size_t threads, size_t capacity, const struct fsx_transfer_settings *settings,
             int64_t down_limit, int64_t up_limit)
{
    struct fsx_pool *pool = calloc(1, sizeof *pool);
    int error = ENOMEM;

    if (pool == NULL) {
        free(settings->ca_bundle);
        errno = error;
        return NULL;
    }
    pool->shared.settings = *settings;
    fsx_limit_init(&pool->shared.down, down_limit);
    fsx_limit_init(&pool->shared.up, up_limit);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->closed, NULL);
    pool->threads = threads;
    pool->workers = calloc(threads, sizeof(*pool->workers));
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!fsx_queue_open(&pool->queue, capacity) || pool->workers == NULL) {
        goto failed;
    }
    if (pool->event_fd < 0) {
        error = errno;
        goto failed;
    }
    while (pool->worker_count < threads) {
        error = start_worker(pool, &pool->workers[pool->worker_count]);
        if (error != 0) {
            goto failed;
        }
        pool->worker_count++;
    }
    return pool;
failed:
    fsx_pool_free(pool);
    errno = error;
    return NULL;
}

enum fsx_pool_status
fsx_pool_submit(struct fsx_pool *pool, struct fsx_job *job, uint64_t *id)
{
    enum fsx_pool_status status = FSX_POOL_OK;

    pthread_mutex_lock(&pool->mutex);
    if (pool->is_closing) {
        status = FSX_POOL_CLOSED;
    }
    else if (fsx_queue_add(&pool->queue, job, NULL)) {
        *id = job->id;
        call_idle_worker(pool);
    }
    else {
        status = FSX_POOL_FULL;
    }
    pthread_mutex_unlock(&pool->mutex);
    return status;
}

size_t
fsx_pool_submit_many(struct fsx_pool *pool, struct fsx_job **jobs, size_t count, uint64_t *ids,
                     uint64_t number, size_t at_once)
{
    size_t taken = 0;
    struct fsx_lane *lane;

    pthread_mutex_lock(&pool->mutex);
    lane = pool->is_closing ? NULL : fsx_queue_lane(&pool->queue, number, at_once);
    if (lane != NULL) {
        while (taken < count && fsx_queue_add(&pool->queue, jobs[taken], lane)) {
            ids[taken] = jobs[taken]->id;
            jobs[taken] = NULL;
            taken++;
        }
        fsx_queue_end_lane(&pool->queue, lane);
        if (fsx_queue_has_waiting(&pool->queue)) {
            call_idle_worker(pool);
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return taken;
}

bool
fsx_pool_cancel(struct fsx_pool *pool, uint64_t id, bool only_held)
{
    struct fsx_job *job;
    bool found;

    pthread_mutex_lock(&pool->mutex);
    job = fsx_queue_find(&pool->queue, id);
    found = job != NULL && job->state != FSX_JOB_DONE &&
            (!only_held || (job->state == FSX_JOB_WAITING && job->is_held));
    if (found) {
        cancel(pool, job);
    }
    pthread_mutex_unlock(&pool->mutex);
    return found;
}

struct fsx_job *
fsx_pool_collect(struct fsx_pool *pool)
{
    struct fsx_job *jobs;
    uint64_t times;

    pthread_mutex_lock(&pool->mutex);
    jobs = fsx_queue_take_done(&pool->queue);
    if (jobs != NULL) {
        ssize_t ignored = read(pool->event_fd, &times, sizeof times);
        (void)ignored;
    }
    pthread_mutex_unlock(&pool->mutex);
    return jobs;
}

void
fsx_pool_forget(struct fsx_pool *pool, struct fsx_job *job)
{
    pthread_mutex_lock(&pool->mutex);
    fsx_queue_forget(&pool->queue, job);
    pthread_mutex_unlock(&pool->mutex);
    fsx_job_free(job);
}

void
fsx_pool_return(struct fsx_pool *pool, struct fsx_job *jobs)
{
    pthread_mutex_lock(&pool->mutex);
    fsx_queue_return(&pool->queue, jobs);
    signal_done(pool);
    pthread_mutex_unlock(&pool->mutex);
}

void
fsx_pool_set_limits(struct fsx_pool *pool, int64_t down, int64_t up)
{
    fsx_limit_set(&pool->shared.down, down);
    fsx_limit_set(&pool->shared.up, up);
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < pool->worker_count; i++) { /* who waits by the old limit */
        fsx_wire_wake(&pool->workers[i].wire);
    }
    pthread_mutex_unlock(&pool->mutex);
}

struct fsx_pool_stats
fsx_pool_stats(struct fsx_pool *pool)
{
    struct fsx_transfer_totals *totals = &pool->shared.totals;
    struct fsx_pool_stats stats = {
        .bytes_down = atomic_load(&totals->bytes_down),
        .bytes_up = atomic_load(&totals->bytes_up),
        .connections = atomic_load(&totals->connections),
        .throttled_ns = atomic_load(&totals->throttled_ns),
        .jobs = atomic_load(&totals->jobs),
    };

    pthread_mutex_lock(&pool->mutex);
    for (size_t priority = 0; priority < FSX_TRANSFER_PRIORITIES; priority++) {
        stats.waiting += pool->queue.waiting[priority].length;
    }
    stats.waiting += pool->queue.held;
    stats.running = pool->queue.running;
    stats.done = pool->queue.done.length;
    pthread_mutex_unlock(&pool->mutex);
    return stats;
}

int
fsx_pool_event_fd(const struct fsx_pool *pool)
{
    return pool->event_fd;
}

static void
cancel_everything(struct fsx_pool *pool)
{
    for (size_t slot = 0; slot < pool->queue.capacity; slot++) {
        struct fsx_job *job = pool->queue.slots[slot];
        if (job != NULL && job->state != FSX_JOB_DONE) {
            cancel(pool, job);
        }
    }
}

void
fsx_pool_close(struct fsx_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    if (pool->is_closing) {
        while (!pool->is_closed) {
            pthread_cond_wait(&pool->closed, &pool->mutex);
        }
        pthread_mutex_unlock(&pool->mutex);
        return;
    }
    pool->is_closing = true;
    cancel_everything(pool);
    while (pool->idle != NULL) {
        call_idle_worker(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    for (size_t i = 0; i < pool->worker_count; i++) {
        struct fsx_worker *worker = &pool->workers[i];
        pthread_join(worker->thread, NULL);
        pthread_cond_destroy(&worker->called);
    }
    pthread_mutex_lock(&pool->mutex);
    for (size_t i = 0; i < pool->worker_count; i++) {
        fsx_wire_close(&pool->workers[i].wire);
    }
    pool->worker_count = 0; /* from now on nobody wakes them */
    pool->is_closed = true;
    pthread_cond_broadcast(&pool->closed);
    pthread_mutex_unlock(&pool->mutex);
}

void
fsx_pool_free(struct fsx_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    fsx_pool_close(pool); /* no threads yet is fine, too */
    fsx_queue_close(&pool->queue);
    if (pool->event_fd >= 0) {
        close(pool->event_fd);
    }
    fsx_limit_destroy(&pool->shared.down);
    fsx_limit_destroy(&pool->shared.up);
    pthread_cond_destroy(&pool->closed);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool->shared.settings.ca_bundle);
    free(pool);
}
