/* What was answered without Python, for Python to learn before it decides anything. Any thread.
 * A fact is noted before the kernel has its answer: whatever the kernel asks next comes after it.
 */
#ifndef FSX_CHANNEL_JOURNAL_H
#define FSX_CHANNEL_JOURNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fsx_fact_kind {
    FSX_MET = 1,           /* the kernel knows `ino` as `name` in `parent`: one lookup more */
    FSX_FORGOTTEN,         /* `count` lookups of the node numbered `ino` are given back */
    FSX_OPENED,            /* `handle` on `ino`, by `uid`, for reading */
    FSX_CREATED,           /* as MET, and `handle`, by `uid`, open with `flags` */
    FSX_UNLINKED,          /* `name` in `parent` was `ino`, of `nlink` links; `handle` holds it */
    FSX_FLUSHED,           /* a close(2) of `handle` */
    FSX_RELEASED,          /* the last one */
    FSX_OPENED_DIRECTORY,  /* `handle`, a descriptor, on `ino` */
    FSX_RELEASED_DIRECTORY /* `handle` */
};

struct fsx_fact {
    struct fsx_fact *next;
    enum fsx_fact_kind kind;
    uint64_t ino, handle, count, parent;
    uint32_t generation, mode, nlink, uid, flags;
    char name[]; /* ends with NUL */
};

/* More of these wait for Python than it can be far behind: the next requests go to it, and it
 * learns first. */
#define FSX_JOURNAL_MANY 32768
/* ... of which each may hold a descriptor open until it is learned. */
#define FSX_JOURNAL_MANY_OPEN 2048

struct fsx_journal {
    pthread_mutex_t mutex;
    int event_fd; /* readable while there are facts */
    atomic_size_t count;
    struct fsx_fact *first, *last;
};

/* 0 or an errno. */
int fsx_journal_open(struct fsx_journal *journal);
void fsx_journal_close(struct fsx_journal *journal);

/* A fact to be filled in and noted; NULL if there is no memory. `name` may be NULL. */
struct fsx_fact *fsx_fact_new(enum fsx_fact_kind kind, const char *name);

void fsx_journal_note(struct fsx_journal *journal, struct fsx_fact *fact);

/* Give facts back that were taken: they come first again. */
void fsx_journal_put_back(struct fsx_journal *journal, struct fsx_fact *facts);

/* All facts, oldest first; the caller frees them. */
struct fsx_fact *fsx_journal_take(struct fsx_journal *journal);

#endif
