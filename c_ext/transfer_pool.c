#include "transfer_pool.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct list {
    struct fsx_job *first, *last;
    size_t length;
};

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
    struct list waiting[FSX_TRANSFER_PRIORITIES];
    struct list done;
    size_t running;
    /* A job's id is serial * capacity + slot: found without a search, and never used again. */
    struct fsx_job **slots;
    size_t *free_slots;
    size_t free_count, capacity;
    uint64_t serial;
    struct fsx_worker *workers;
    size_t worker_count, threads;
    /* A stack: who worked last has the warm connection. */
    struct fsx_worker *idle;
};

static void
append(struct list *list, struct fsx_job *job)
{
    job->previous = list->last;
    job->next = NULL;
    if (list->last == NULL) {
        list->first = job;
    }
    else {
        list->last->next = job;
    }
    list->last = job;
    list->length++;
}

static void
take_out(struct list *list, struct fsx_job *job)
{
    if (job->previous == NULL) {
        list->first = job->next;
    }
    else {
        job->previous->next = job->next;
    }
    if (job->next == NULL) {
        list->last = job->previous;
    }
    else {
        job->next->previous = job->previous;
    }
    job->previous = job->next = NULL;
    list->length--;
}

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
    bool was_empty = pool->done.first == NULL;

    job->state = FSX_JOB_DONE;
    job->worker = NULL;
    append(&pool->done, job);
    if (was_empty) { /* else it is readable already */
        signal_done(pool);
    }
}

static void
cancel(struct fsx_pool *pool, struct fsx_job *job)
{
    atomic_store(&job->cancelled, true);
    if (job->state == FSX_JOB_WAITING) {
        take_out(&pool->waiting[job->priority], job);
        fsx_job_close_fd(job);
        fsx_job_fail(job, FSX_TRANSFER_CANCELLED, "cancelled");
        finish(pool, job);
    }
    else {
        fsx_wire_wake(&job->worker->wire);
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

static struct fsx_job *
take_next(struct fsx_pool *pool)
{
    for (size_t priority = 0; priority < FSX_TRANSFER_PRIORITIES; priority++) {
        struct fsx_job *job = pool->waiting[priority].first;
        if (job != NULL) {
            take_out(&pool->waiting[priority], job);
            return job;
        }
    }
    return NULL;
}

/* --- a worker --- */

static void *
work(void *argument)
{
    struct fsx_worker *worker = argument;
    struct fsx_pool *pool = worker->pool;

    pthread_mutex_lock(&pool->mutex);
    while (!pool->is_closing) {
        struct fsx_job *job = take_next(pool);
        if (job == NULL) {
            worker->next_idle = pool->idle;
            pool->idle = worker;
            worker->is_called = false;
            while (!worker->is_called) {
                pthread_cond_wait(&worker->called, &pool->mutex);
            }
            continue;
        }
        job->state = FSX_JOB_RUNNING;
        job->worker = worker;
        pool->running++;
        pthread_mutex_unlock(&pool->mutex);
        fsx_wire_run(&worker->wire, job);
        pthread_mutex_lock(&pool->mutex);
        pool->running--;
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
    pool->capacity = capacity;
    pool->slots = calloc(capacity, sizeof(*pool->slots));
    pool->free_slots = calloc(capacity, sizeof(*pool->free_slots));
    pool->workers = calloc(threads, sizeof(*pool->workers));
    pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->slots == NULL || pool->free_slots == NULL || pool->workers == NULL) {
        goto failed;
    }
    if (pool->event_fd < 0) {
        error = errno;
        goto failed;
    }
    while (pool->free_count < capacity) {
        pool->free_slots[pool->free_count] = capacity - 1 - pool->free_count;
        pool->free_count++;
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
    else if (pool->free_count == 0) {
        status = FSX_POOL_FULL;
    }
    else {
        size_t slot = pool->free_slots[--pool->free_count];
        pool->slots[slot] = job;
        *id = job->id = ++pool->serial * pool->capacity + slot;
        job->state = FSX_JOB_WAITING;
        append(&pool->waiting[job->priority], job);
        call_idle_worker(pool);
    }
    pthread_mutex_unlock(&pool->mutex);
    return status;
}

bool
fsx_pool_cancel(struct fsx_pool *pool, uint64_t id)
{
    struct fsx_job *job;
    bool found;

    pthread_mutex_lock(&pool->mutex);
    job = pool->slots[id % pool->capacity];
    found = job != NULL && job->id == id && job->state != FSX_JOB_DONE;
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
    jobs = pool->done.first;
    pool->done = (struct list){0};
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
    size_t slot = (size_t)(job->id % pool->capacity);

    pthread_mutex_lock(&pool->mutex);
    pool->slots[slot] = NULL;
    pool->free_slots[pool->free_count++] = slot;
    pthread_mutex_unlock(&pool->mutex);
    fsx_job_free(job);
}

void
fsx_pool_return(struct fsx_pool *pool, struct fsx_job *jobs)
{
    struct list before;

    pthread_mutex_lock(&pool->mutex);
    before = pool->done;
    pool->done = (struct list){0};
    while (jobs != NULL) {
        struct fsx_job *next = jobs->next;
        append(&pool->done, jobs);
        jobs = next;
    }
    while (before.first != NULL) {
        struct fsx_job *job = before.first;
        take_out(&before, job);
        append(&pool->done, job);
    }
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
        stats.waiting += pool->waiting[priority].length;
    }
    stats.running = pool->running;
    stats.done = pool->done.length;
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
    for (size_t priority = 0; priority < FSX_TRANSFER_PRIORITIES; priority++) {
        while (pool->waiting[priority].first != NULL) {
            cancel(pool, pool->waiting[priority].first);
        }
    }
    for (size_t slot = 0; slot < pool->capacity; slot++) {
        struct fsx_job *job = pool->slots[slot];
        if (job != NULL && job->state == FSX_JOB_RUNNING) {
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
    if (pool->slots != NULL) { /* else it never began */
        fsx_pool_close(pool);
        for (size_t slot = 0; slot < pool->capacity; slot++) {
            fsx_job_free(pool->slots[slot]);
        }
    }
    if (pool->event_fd >= 0) {
        close(pool->event_fd);
    }
    fsx_limit_destroy(&pool->shared.down);
    fsx_limit_destroy(&pool->shared.up);
    pthread_cond_destroy(&pool->closed);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool->free_slots);
    free(pool->slots);
    free(pool->shared.settings.ca_bundle);
    free(pool);
}
