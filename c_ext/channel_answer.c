#include "channel_answer.h"

#include "channel_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

/* So much at once, that the end of the mount need not wait long; the kernel asks again for the
 * rest. */
#define COPIED_AT_ONCE ((uint64_t)128 << 20)

struct fsx_question {
    struct fsx_question *next;
    uint64_t since;
    struct fuse_in_header head;
    union {
        struct fuse_lseek_in lseek;
        struct fuse_fallocate_in fallocate;
        struct fuse_copy_file_range_in copy;
    } body;
};

union answer {
    struct fuse_lseek_out lseek;
    struct fuse_write_out copied;
    uint64_t copied_64;
};

static void
reply(int device, uint64_t unique, int error, const void *body, size_t size)
{
    struct fuse_out_header head = {.error = -error, .unique = unique};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)body, size}};
    ssize_t ignored;

    head.len = (uint32_t)(sizeof head + size);
    do {
        ignored = writev(device, parts, size == 0 ? 1 : 2);
    } while (ignored < 0 && errno == EINTR); /* any other: nobody wants the answer any more */
}

void
fsx_answer_error(int device, uint64_t unique, int error)
{
    reply(device, unique, error, NULL, 0);
}

/* --- the answers: 0 or an errno --- */

static bool
is_stub(const struct fsx_answerer *answerer, int fd)
{
    return fgetxattr(fd, answerer->stub_xattr, NULL, 0) >= 0;
}

static int
seek(const struct fsx_answerer *answerer, const struct fuse_lseek_in *asked,
     struct fuse_lseek_out *out)
{
    int fd = fsx_fh_fd(asked->fh);
    struct stat status;
    off_t found;

    if (is_stub(answerer, fd)) { /* all of it is data, wherever it is */
        if (fstat(fd, &status) < 0) {
            return errno;
        }
        if (asked->offset >= (uint64_t)status.st_size) {
            return ENXIO;
        }
        out->offset = asked->whence == SEEK_DATA ? asked->offset : (uint64_t)status.st_size;
        return 0;
    }
    found = lseek(fd, (off_t)asked->offset, (int)asked->whence);
    if (found < 0) {
        return errno;
    }
    out->offset = (uint64_t)found;
    return 0;
}

static void
forget_attributes(int device, uint64_t nodeid)
{
    struct fuse_out_header head = {.error = FUSE_NOTIFY_INVAL_INODE};
    struct fuse_notify_inval_inode_out out = {.ino = nodeid, .off = -1};
    struct iovec parts[2] = {{&head, sizeof head}, {&out, sizeof out}};
    ssize_t ignored;

    head.len = sizeof head + sizeof out;
    ignored = writev(device, parts, 2);
    (void)ignored; /* ENOENT: it knows none */
}

/* Who changes bytes takes the file its set-id bits, unless it is root (HANDLE_KILLPRIV_V2). Our own
 * calls do not: we are root. */
static void
drop_set_id(int device, int fd, const struct fuse_in_header *head, uint64_t nodeid)
{
    struct stat status;
    mode_t mode;

    if (head->uid == 0 || fstat(fd, &status) < 0) {
        return;
    }
    mode = status.st_mode & 07777 & ~(mode_t)S_ISUID;
    if (mode & S_IXGRP) { /* without it the bit has another meaning */
        mode &= ~(mode_t)S_ISGID;
    }
    if (mode != (status.st_mode & 07777)) {
        (void)fchmod(fd, mode);
        forget_attributes(device, nodeid); /* it must not be run with what it lost */
    }
}

static int
allocate(int device, const struct fuse_in_header *head, const struct fuse_fallocate_in *asked)
{
    int fd = fsx_fh_fd(asked->fh); /* open for writing, and so the file is no stub */
    int result;

    drop_set_id(device, fd, head, head->nodeid);
    do {
        result = fallocate(fd, (int)asked->mode, (off_t)asked->offset, (off_t)asked->length);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? errno : 0;
}

static int
copy(const struct fsx_answerer *answerer, const struct fuse_in_header *head,
     const struct fuse_copy_file_range_in *asked, uint64_t *copied)
{
    int from = fsx_fh_fd(asked->fh_in), to = fsx_fh_fd(asked->fh_out);
    off_t from_offset = (off_t)asked->off_in, to_offset = (off_t)asked->off_out;
    size_t length = (size_t)(asked->len < COPIED_AT_ONCE ? asked->len : COPIED_AT_ONCE);
    ssize_t result;

    if (is_stub(answerer, from)) {
        return EOPNOTSUPP; /* the kernel reads and writes then, and reading loads */
    }
    drop_set_id(answerer->device, to, head, asked->nodeid_out);
    do {
        result = copy_file_range(from, &from_offset, to, &to_offset, length, 0);
    } while (result < 0 && errno == EINTR);
    if (result < 0) {
        return errno;
    }
    *copied = (uint64_t)result;
    return 0;
}

static void
answer(const struct fsx_answerer *answerer, const struct fsx_question *question)
{
    union answer out = {0};
    uint64_t copied = 0;
    size_t size = 0;
    int error;

    switch (question->head.opcode) {
    case FUSE_LSEEK:
        error = seek(answerer, &question->body.lseek, &out.lseek);
        size = sizeof out.lseek;
        break;
    case FSX_SYNCFS:
        error = syncfs(atomic_load(&answerer->root)) < 0 ? errno : 0;
        break;
    case FUSE_FALLOCATE:
        error = allocate(answerer->device, &question->head, &question->body.fallocate);
        break;
    default:
        error = copy(answerer, &question->head, &question->body.copy, &copied);
        if (question->head.opcode == FSX_COPY_FILE_RANGE_64) {
            out.copied_64 = copied;
            size = sizeof out.copied_64;
        }
        else {
            out.copied.size = (uint32_t)copied;
            size = sizeof out.copied;
        }
        break;
    }
    reply(answerer->device, question->head.unique, error, &out, error == 0 ? size : 0);
    fsx_counts_note(answerer->counts, question->head.opcode, question->since);
}

/* --- the threads --- */

static void *
work(void *argument)
{
    struct fsx_answerer *answerer = argument;

    pthread_mutex_lock(&answerer->mutex);
    while (!answerer->is_closing) {
        struct fsx_question *question = answerer->first;
        if (question == NULL) {
            pthread_cond_wait(&answerer->called, &answerer->mutex);
            continue;
        }
        answerer->first = question->next;
        if (answerer->first == NULL) {
            answerer->last = NULL;
        }
        pthread_mutex_unlock(&answerer->mutex);
        answer(answerer, question);
        free(question);
        pthread_mutex_lock(&answerer->mutex);
    }
    pthread_mutex_unlock(&answerer->mutex);
    return NULL;
}

int
fsx_answerer_open(struct fsx_answerer *answerer, int device, const char *stub_xattr,
                  struct fsx_counts *counts)
{
    answerer->device = device;
    answerer->stub_xattr = stub_xattr;
    answerer->counts = counts;
    atomic_store(&answerer->root, -1);
    pthread_mutex_init(&answerer->mutex, NULL);
    pthread_cond_init(&answerer->called, NULL);
    answerer->is_open = true;
    while (answerer->started < FSX_ANSWER_THREADS) {
        int error = pthread_create(&answerer->threads[answerer->started], NULL, work, answerer);
        if (error != 0) {
            fsx_answerer_close(answerer);
            return error;
        }
        (void)pthread_setname_np(answerer->threads[answerer->started], "fsx-answer");
        answerer->started++;
    }
    return 0;
}

void
fsx_answerer_close(struct fsx_answerer *answerer)
{
    struct fsx_question *question;

    if (!answerer->is_open) {
        return;
    }
    pthread_mutex_lock(&answerer->mutex);
    answerer->is_closing = true;
    pthread_cond_broadcast(&answerer->called);
    pthread_mutex_unlock(&answerer->mutex);
    while (answerer->started > 0) {
        pthread_join(answerer->threads[--answerer->started], NULL);
    }
    while ((question = answerer->first) != NULL) {
        answerer->first = question->next;
        free(question);
    }
    pthread_cond_destroy(&answerer->called);
    pthread_mutex_destroy(&answerer->mutex);
    answerer->is_open = false;
}

bool
fsx_answerer_takes(uint32_t opcode)
{
    return opcode == FUSE_LSEEK || opcode == FUSE_FALLOCATE || opcode == FUSE_COPY_FILE_RANGE ||
           opcode == FSX_COPY_FILE_RANGE_64 || opcode == FSX_SYNCFS;
}

int
fsx_answerer_ask(struct fsx_answerer *answerer, const void *request, size_t length)
{
    struct fsx_question *question = calloc(1, sizeof *question);

    if (question == NULL) {
        return ENOMEM;
    }
    question->since = fsx_counts_now();
    memcpy(&question->head, request, sizeof question->head);
    length -= sizeof question->head;
    memcpy(&question->body, (const char *)request + sizeof question->head,
           length < sizeof question->body ? length : sizeof question->body);
    pthread_mutex_lock(&answerer->mutex);
    if (answerer->last == NULL) {
        answerer->first = question;
    }
    else {
        answerer->last->next = question;
    }
    answerer->last = question;
    pthread_cond_signal(&answerer->called);
    pthread_mutex_unlock(&answerer->mutex);
    return 0;
}
