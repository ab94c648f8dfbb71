#include "transfer_queue.h"

#include <stdlib.h>

static void
append(struct fsx_job_list *list, struct fsx_job *job)
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
take_out(struct fsx_job_list *list, struct fsx_job *job)
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

bool
fsx_queue_open(struct fsx_queue *queue, size_t capacity)
{
    queue->slots = calloc(capacity, sizeof(*queue->slots));
    queue->free_slots = calloc(capacity, sizeof(*queue->free_slots));
    if (queue->slots == NULL || queue->free_slots == NULL) {
        return false;
    }
    queue->capacity = capacity;
    while (queue->free_count < capacity) { /* the lowest on top */
        queue->free_slots[queue->free_count] = capacity - 1 - queue->free_count;
        queue->free_count++;
    }
    return true;
}

void
fsx_queue_close(struct fsx_queue *queue)
{
    for (size_t slot = 0; slot < queue->capacity; slot++) {
        fsx_job_free(queue->slots[slot]);
    }
    for (struct fsx_lane *lane = queue->lanes, *next; lane != NULL; lane = next) {
        next = lane->next;
        free(lane);
    }
    free(queue->free_slots);
    free(queue->slots);
}

static void
let_in(struct fsx_queue *queue, struct fsx_lane *lane)
{
    while (lane->held.first != NULL && lane->let_in < lane->at_once) {
        struct fsx_job *job = lane->held.first;
        take_out(&lane->held, job);
        queue->held--;
        job->is_held = false;
        lane->let_in++;
        append(&queue->waiting[job->priority], job);
    }
}

struct fsx_lane *
fsx_queue_lane(struct fsx_queue *queue, uint64_t number, size_t at_once)
{
    struct fsx_lane *lane = queue->lanes;

    while (lane != NULL && lane->number != number) {
        lane = lane->next;
    }
    if (lane == NULL) {
        lane = calloc(1, sizeof *lane);
        if (lane == NULL) {
            return NULL;
        }
        lane->number = number;
        lane->next = queue->lanes;
        queue->lanes = lane;
    }
    lane->at_once = at_once;
    let_in(queue, lane);
    return lane;
}

void
fsx_queue_end_lane(struct fsx_queue *queue, struct fsx_lane *lane)
{
    struct fsx_lane **place = &queue->lanes;

    if (lane->let_in > 0 || lane->held.first != NULL) {
        return;
    }
    while (*place != lane) {
        place = &(*place)->next;
    }
    *place = lane->next;
    free(lane);
}

bool
fsx_queue_add(struct fsx_queue *queue, struct fsx_job *job, struct fsx_lane *lane)
{
    size_t slot;

    if (queue->free_count == 0) {
        return false;
    }
    slot = queue->free_slots[--queue->free_count];
    queue->slots[slot] = job;
    job->id = ++queue->serial * queue->capacity + slot;
    job->state = FSX_JOB_WAITING;
    job->lane = lane;
    if (lane == NULL) {
        append(&queue->waiting[job->priority], job);
    }
    else {
        job->is_held = true;
        append(&lane->held, job);
        queue->held++;
        let_in(queue, lane);
    }
    return true;
}

struct fsx_job *
fsx_queue_find(const struct fsx_queue *queue, uint64_t id)
{
    struct fsx_job *job = queue->slots[id % queue->capacity];
    return job != NULL && job->id == id ? job : NULL;
}

bool
fsx_queue_has_waiting(const struct fsx_queue *queue)
{
    for (size_t priority = 0; priority < FSX_TRANSFER_PRIORITIES; priority++) {
        if (queue->waiting[priority].first != NULL) {
            return true;
        }
    }
    return false;
}

struct fsx_job *
fsx_queue_take_next(struct fsx_queue *queue)
{
    for (size_t priority = 0; priority < FSX_TRANSFER_PRIORITIES; priority++) {
        struct fsx_job *job = queue->waiting[priority].first;
        if (job != NULL) {
            take_out(&queue->waiting[priority], job);
            job->state = FSX_JOB_RUNNING;
            queue->running++;
            return job;
        }
    }
    return NULL;
}

void
fsx_queue_finish(struct fsx_queue *queue, struct fsx_job *job)
{
    struct fsx_lane *lane = job->lane;

    if (job->state == FSX_JOB_RUNNING) {
        queue->running--;
    }
    else if (job->is_held) {
        take_out(&lane->held, job);
        queue->held--;
    }
    else {
        take_out(&queue->waiting[job->priority], job);
    }
    if (lane != NULL) {
        lane->let_in -= job->is_held ? 0 : 1;
        let_in(queue, lane);
        fsx_queue_end_lane(queue, lane);
    }
    job->state = FSX_JOB_DONE;
    job->worker = NULL;
    job->lane = NULL;
    append(&queue->done, job);
}

struct fsx_job *
fsx_queue_take_done(struct fsx_queue *queue)
{
    struct fsx_job *jobs = queue->done.first;
    queue->done = (struct fsx_job_list){0};
    return jobs;
}

void
fsx_queue_return(struct fsx_queue *queue, struct fsx_job *jobs)
{
    struct fsx_job *newer = fsx_queue_take_done(queue);

    for (struct fsx_job *job = jobs, *next; job != NULL; job = next) {
        next = job->next;
        append(&queue->done, job);
    }
    for (struct fsx_job *job = newer, *next; job != NULL; job = next) {
        next = job->next;
        append(&queue->done, job);
    }
}

void
fsx_queue_forget(struct fsx_queue *queue, struct fsx_job *job)
{
    size_t slot = (size_t)(job->id % queue->capacity);

    queue->slots[slot] = NULL;
    queue->free_slots[queue->free_count++] = slot;
}
