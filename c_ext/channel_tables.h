/* What the channel has to know of the tree to answer without Python. Python keeps it true.
 *
 * Answers are given with `answering` held for reading, from the first look at the host to the
 * reply; whoever changes a table holds it for writing. So after a change there is no answer on its
 * way that was found before it. */
#ifndef FSX_CHANNEL_TABLES_H
#define FSX_CHANNEL_TABLES_H

#include "channel_map.h"

#include <pthread.h>
#include <stdatomic.h>

#define FSX_NAMES 131072 /* inodes whose name is remembered, a power of two */
#define FSX_ABSENT 65536 /* names of which the kernel may know that they are absent */
/* ... and for how long at most: nobody may tell of names that appear outside all associations. */
#define FSX_ABSENT_NS UINT64_C(1000000000)
#define FSX_NAME_MAX 255

struct fsx_named {
    uint64_t ino, parent;
    uint32_t generation;
    char *name;
};

struct fsx_tables {
    pthread_rwlock_t answering;
    bool is_open, is_on;
    /* changed with `answering` held for writing */
    uint64_t root_ino;
    uint32_t dev_major, dev_minor;
    uint64_t timeout_ns;        /* of names and attributes in the kernel */
    char *hidden;               /* what starts so in the root is Python's business */
    struct fsx_map directories; /* inode -> an O_PATH descriptor, Python's, and FSX_WRITABLE */
    struct fsx_map pythons;     /* inodes of which only Python knows what there is to say */
    pthread_mutex_t mutex;      /* for what answers change */
    struct fsx_map opened;      /* inode -> its backing id, and above it how many count on it */
    struct fsx_map absent;      /* hash of parent and name -> until when, in ms */
    uint64_t swept_ms;          /* when what had expired was dropped */
    struct fsx_named *names;
    atomic_ullong least_free; /* bytes of the tree's disk; with less, only Python makes files */
    atomic_ullong met, ahead; /* the inode looked up last; the one to look at before it is asked */
};

void fsx_tables_open(struct fsx_tables *tables);
void fsx_tables_close(struct fsx_tables *tables);

/* --- for Python. With `answering` held by them, not by the caller. --- */

/* From now on requests are answered, `root_fd` being the tree's root. 0 or an errno; ENOTSUP: its
 * file system does not tell when files were made. */
int fsx_tables_switch_on(struct fsx_tables *tables, int root_fd, uint64_t timeout_ns,
                         const char *hidden);

/* `fd` is good until the directory is served no more. `is_writable`: applications may make files
 * in it. False if there is no memory. */
bool fsx_tables_serve(struct fsx_tables *tables, uint64_t ino, int fd, bool is_writable);
void fsx_tables_serve_no_more(struct fsx_tables *tables, uint64_t ino);
bool fsx_tables_leave_to_python(struct fsx_tables *tables, uint64_t ino, bool is_pythons);

/* Returns when every answer that was on its way is given. */
void fsx_tables_let_finish(struct fsx_tables *tables);

/* --- any thread --- */

/* Somebody opens the file behind `fd`, of which the kernel wants to hear the same as the last time
 * while it is open: a backing id, or 0 if it is served by us. A new one only if `may_pass`. -1 and
 * errno if the kernel refused or there is no memory. */
int64_t fsx_tables_join(struct fsx_tables *tables, int device, uint64_t ino, int fd, bool may_pass);
/* As join, but only where it is or becomes one in passthrough; else 0, and nobody joined. */
int64_t fsx_tables_join_passing(struct fsx_tables *tables, int device, uint64_t ino, int fd);
void fsx_tables_leave(struct fsx_tables *tables, int device, uint64_t ino);
/* In passthrough: then its size and times may change without the kernel's noticing, through a
 * mapping. */
bool fsx_tables_is_passing(struct fsx_tables *tables, uint64_t ino);

/* Whether the kernel may know that there is no such name. One answer on its way may say so and not
 * have noted it yet: then it knows that for a second. */
bool fsx_tables_is_absent(struct fsx_tables *tables, uint64_t parent, const char *name);

/* The kernel knows the name now, or is told to forget what it knows. */
void fsx_tables_present(struct fsx_tables *tables, uint64_t parent, const char *name);
/* The kernel will know for so many nanoseconds that there is none; 0: it must not, there are too
 * many of these. */
uint64_t fsx_tables_absent(struct fsx_tables *tables, uint64_t parent, const char *name);

void fsx_tables_name(struct fsx_tables *tables, uint64_t ino, uint64_t parent, uint32_t generation,
                     const char *name);
/* Where that inode stands, as far as is remembered. `name` has room for FSX_NAME_MAX + 1 bytes. */
bool fsx_tables_named(struct fsx_tables *tables, uint64_t ino, struct fsx_named *found, char *name);

/* --- while `answering` is held --- */

/* Its descriptor, or -1. */
int fsx_tables_directory(const struct fsx_tables *tables, uint64_t ino);
bool fsx_tables_is_writable(const struct fsx_tables *tables, uint64_t ino);
bool fsx_tables_is_pythons(const struct fsx_tables *tables, uint64_t ino);
/* So much of the disk that `directory` lies on is free that files may be made in it. */
bool fsx_tables_has_room(const struct fsx_tables *tables, int directory);

/* The kernel's numbers: the root's and 1 change places. Its own inverse. */
static inline uint64_t
fsx_nodeid(const struct fsx_tables *tables, uint64_t ino)
{
    return ino == tables->root_ino ? 1 : ino == 1 ? tables->root_ino : ino;
}

#endif
