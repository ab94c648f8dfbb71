/* Where the jobs of a pool are, from submit to collect. No lock of its own: the pool has one.
 *
 * A job is in one place at a time: waiting (a list a priority), running (one worker's) or done (a
 * list, until it is collected). Until it is forgotten it can be found by its id.
 *
 * Jobs of a lane wait for each other: so many of them are let in at a time, and the others are held
 * before the lists of those that wait, where they stand in nobody's way.
 */
#ifndef FSX_TRANSFER_QUEUE_H
#define FSX_TRANSFER_QUEUE_H

#include "transfer_job.h"

#define FSX_TRANSFER_PRIORITIES 4

struct fsx_job_list {
    struct fsx_job *first, *last;
    size_t length;
};

struct fsx_lane {
    uint64_t number;
    size_t at_once, let_in; /* the most that may wait or run, and how many do */
    struct fsx_job_list held;
    struct fsx_lane *next;
};

struct fsx_queue {
    struct fsx_job_list waiting[FSX_TRANSFER_PRIORITIES]; /* 0 goes first */
    struct fsx_job_list done;                             /* oldest first */
    size_t running, held;
    struct fsx_lane *lanes; /* those that have jobs */
    /* A job's id is serial * capacity + slot: found without a search, and never used again. */
    struct fsx_job **slots;
    size_t *free_slots;
    size_t free_count, capacity;
    uint64_t serial;
};

/* For `capacity` jobs, in a queue of zeros. False without memory; close in either case. */
bool fsx_queue_open(struct fsx_queue *queue, size_t capacity);
void fsx_queue_close(struct fsx_queue *queue); /* frees the jobs, too */

/* Give the job an id, and let it wait; in a lane, unless that is NULL. False: there are as many as
 * may be. */
bool fsx_queue_add(struct fsx_queue *queue, struct fsx_job *job, struct fsx_lane *lane);
/* The lane of that number, of which so many are let in from now on. A new one is there until
 * fsx_queue_end_lane or until its last job is done. NULL without memory. */
struct fsx_lane *fsx_queue_lane(struct fsx_queue *queue, uint64_t number, size_t at_once);
void fsx_queue_end_lane(struct fsx_queue *queue, struct fsx_lane *lane);    /* if it has no jobs */
struct fsx_job *fsx_queue_find(const struct fsx_queue *queue, uint64_t id); /* or NULL */

/* The next to run, running from now on; NULL if none waits. */
bool fsx_queue_has_waiting(const struct fsx_queue *queue);
struct fsx_job *fsx_queue_take_next(struct fsx_queue *queue);
/* A job that waited or ran is done. */
void fsx_queue_finish(struct fsx_queue *queue, struct fsx_job *job);

/* All that are done, oldest first, linked by `next`; NULL if none is. */
struct fsx_job *fsx_queue_take_done(struct fsx_queue *queue);
/* Put back what was taken and not forgotten: it is older than what was done since. */
void fsx_queue_return(struct fsx_queue *queue, struct fsx_job *jobs);
/* Its place is free again; the job is the caller's. */
void fsx_queue_forget(struct fsx_queue *queue, struct fsx_job *job);

#endif
