/* Requests that libfuse 3.14 or pyfuse3 cannot answer, answered on the handle's own descriptor by a
 * few threads. */
#ifndef FSX_CHANNEL_ANSWER_H
#define FSX_CHANNEL_ANSWER_H

#include "channel_counts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FSX_ANSWER_THREADS 4

struct fsx_answerer {
    int device;
    const char *stub_xattr; /* marks a file whose holes are data that is not here */
    struct fsx_counts *counts;
    atomic_int root;       /* a descriptor in the tree's file system, or -1 */
    pthread_mutex_t mutex; /* for all below */
    pthread_cond_t called;
    bool is_open, is_closing;
    struct fsx_question *first, *last;
    pthread_t threads[FSX_ANSWER_THREADS];
    size_t started;
};

/* 0 or an errno; then nothing is left behind. */
int fsx_answerer_open(struct fsx_answerer *answerer, int device, const char *stub_xattr,
                      struct fsx_counts *counts);

/* Waits for what is being done. What nobody began to answer is dropped: its kernel is gone. */
void fsx_answerer_close(struct fsx_answerer *answerer);

bool fsx_answerer_takes(uint32_t opcode);

/* 0 or an errno; the request is copied. */
int fsx_answerer_ask(struct fsx_answerer *answerer, const void *request, size_t length);

/* Tell the kernel that a request failed. */
void fsx_answer_error(int device, uint64_t unique, int error);

#endif
