/* A pool of native threads that carry out requests. Knows no Python; any thread may call it.
 *
 * Every job that was submitted is collected once, whatever happened to it.
 */
#ifndef FSX_TRANSFER_POOL_H
#define FSX_TRANSFER_POOL_H

#include "transfer_queue.h"
#include "transfer_wire.h"

struct fsx_pool;

struct fsx_pool_stats {
    size_t waiting, running, done;
    int64_t bytes_down, bytes_up, connections, throttled_ns, jobs;
};

enum fsx_pool_status { FSX_POOL_OK, FSX_POOL_FULL, FSX_POOL_CLOSED };

/* `capacity` is the most jobs to hold, from submit to collect. Takes settings->ca_bundle over in
 * any case. NULL with errno. */
struct fsx_pool *fsx_pool_new(size_t threads, size_t capacity,
                              const struct fsx_transfer_settings *settings, int64_t down_limit,
                              int64_t up_limit);

/* Takes the job over if FSX_POOL_OK, and sets *id. */
enum fsx_pool_status fsx_pool_submit(struct fsx_pool *pool, struct fsx_job *job, uint64_t *id);

/* The same for several of one lane: the first ones, as many as there is room for, are taken over,
 * and are NULL in `jobs` then. How many. Of the jobs of that lane, `at_once` at most are carried
 * out at a time, these and those before them. */
size_t fsx_pool_submit_many(struct fsx_pool *pool, struct fsx_job **jobs, size_t count,
                            uint64_t *ids, uint64_t lane, size_t at_once);

/* False: there is no such job, or it is done; or, if `only_held`, its lane has let it in. */
bool fsx_pool_cancel(struct fsx_pool *pool, uint64_t id, bool only_held);

/* Take everything that is done, oldest first, linked by `next`. Give each job back to
 * fsx_pool_forget, or what was not looked at to fsx_pool_return. */
struct fsx_job *fsx_pool_collect(struct fsx_pool *pool);
void fsx_pool_forget(struct fsx_pool *pool, struct fsx_job *job);
void fsx_pool_return(struct fsx_pool *pool, struct fsx_job *jobs);

void fsx_pool_set_limits(struct fsx_pool *pool, int64_t down, int64_t up);
struct fsx_pool_stats fsx_pool_stats(struct fsx_pool *pool);
int fsx_pool_event_fd(const struct fsx_pool *pool); /* readable while something is done */

/* Cancel everything and end the threads. Blocks until they are gone; what was done or cancelled can
 * still be collected. Twice is harmless, also at the same time. */
void fsx_pool_close(struct fsx_pool *pool);
void fsx_pool_free(struct fsx_pool *pool); /* closes first; NULL is fine */

#endif
