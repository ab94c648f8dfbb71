#include "channel_tables.h"

#include "channel_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#define SWEPT_EVERY_MS 1000
#define WRITABLE (UINT64_C(1) << 32)  /* beside the descriptor */
#define REFERENCE (UINT64_C(1) << 32) /* above the backing id */

void
fsx_tables_open(struct fsx_tables *tables)
{
    pthread_rwlockattr_t attributes;

    memset(tables, 0, sizeof *tables);
    pthread_rwlockattr_init(&attributes);
    /* Who changes a table is not kept waiting by a stream of requests. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&tables->answering, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&tables->mutex, NULL);
    tables->is_open = true;
}

void
fsx_tables_close(struct fsx_tables *tables)
{
    if (!tables->is_open) {
        return;
    }
    tables->is_open = tables->is_on = false;
    for (size_t i = 0; tables->names != NULL && i < FSX_NAMES; i++) {
        free(tables->names[i].name);
    }
    free(tables->names);
    tables->names = NULL;
    free(tables->hidden);
    tables->hidden = NULL;
    fsx_map_clear(&tables->directories);
    fsx_map_clear(&tables->pythons);
    fsx_map_clear(&tables->opened);
    fsx_map_clear(&tables->absent);
    pthread_mutex_destroy(&tables->mutex);
    pthread_rwlock_destroy(&tables->answering);
}

/* --- for Python --- */

int
fsx_tables_switch_on(struct fsx_tables *tables, int root_fd, uint64_t timeout_ns,
                     const char *hidden)
{
    struct statx status;
    int error = 0;

    if (statx(root_fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &status) < 0) {
        return errno;
    }
    if ((status.stx_mask & STATX_BTIME) == 0) {
        return ENOTSUP;
    }
    pthread_rwlock_wrlock(&tables->answering);
    tables->root_ino = status.stx_ino;
    tables->dev_major = status.stx_dev_major;
    tables->dev_minor = status.stx_dev_minor;
    tables->timeout_ns = timeout_ns;
    tables->hidden = strdup(hidden);
    tables->names = calloc(FSX_NAMES, sizeof *tables->names);
    if (tables->hidden == NULL || tables->names == NULL ||
        !fsx_map_put(&tables->directories, status.stx_ino, (uint64_t)root_fd)) {
        error = ENOMEM;
    }
    tables->is_on = error == 0;
    pthread_rwlock_unlock(&tables->answering);
    return error;
}

bool
fsx_tables_serve(struct fsx_tables *tables, uint64_t ino, int fd, bool is_writable)
{
    bool done;

    pthread_rwlock_wrlock(&tables->answering);
    done = fsx_map_put(&tables->directories, ino, (uint64_t)fd | (is_writable ? WRITABLE : 0));
    pthread_rwlock_unlock(&tables->answering);
    return done;
}

void
fsx_tables_serve_no_more(struct fsx_tables *tables, uint64_t ino)
{
    pthread_rwlock_wrlock(&tables->answering);
    (void)fsx_map_remove(&tables->directories, ino);
    pthread_rwlock_unlock(&tables->answering);
}

bool
fsx_tables_leave_to_python(struct fsx_tables *tables, uint64_t ino, bool is_pythons)
{
    bool done = true;

    pthread_rwlock_wrlock(&tables->answering);
    if (is_pythons) {
        done = fsx_map_put(&tables->pythons, ino, 1);
    }
    else {
        (void)fsx_map_remove(&tables->pythons, ino);
    }
    pthread_rwlock_unlock(&tables->answering);
    return done;
}

void
fsx_tables_let_finish(struct fsx_tables *tables)
{
    pthread_rwlock_wrlock(&tables->answering);
    pthread_rwlock_unlock(&tables->answering);
}

/* --- open files --- */

static int64_t
register_file(int device, int fd)
{
    struct fsx_backing_map map = {.fd = fd};
    return ioctl(device, FSX_DEV_IOC_BACKING_OPEN, &map);
}

static void
unregister_file(int device, uint32_t id)
{
    if (id != 0) {
        (void)ioctl(device, FSX_DEV_IOC_BACKING_CLOSE, &id);
    }
}

static int64_t
join(struct fsx_tables *tables, int device, uint64_t ino, int fd, bool may_pass, bool must_pass)
{
    uint64_t *opened;
    int64_t id = 0;

    pthread_mutex_lock(&tables->mutex);
    opened = fsx_map_find(&tables->opened, ino);
    if (opened != NULL) {
        id = (int64_t)(*opened & (REFERENCE - 1));
        if (id != 0 || !must_pass) {
            *opened += REFERENCE;
        }
    }
    else {
        if (may_pass) {
            id = register_file(device, fd);
        }
        if (id >= 0 && (id != 0 || !must_pass) &&
            !fsx_map_put(&tables->opened, ino, (uint64_t)id | REFERENCE)) {
            unregister_file(device, (uint32_t)id);
            errno = ENOMEM;
            id = -1;
        }
    }
    pthread_mutex_unlock(&tables->mutex);
    return id;
}

int64_t
fsx_tables_join(struct fsx_tables *tables, int device, uint64_t ino, int fd, bool may_pass)
{
    return join(tables, device, ino, fd, may_pass, false);
}

int64_t
fsx_tables_join_passing(struct fsx_tables *tables, int device, uint64_t ino, int fd)
{
    return join(tables, device, ino, fd, true, true);
}

void
fsx_tables_leave(struct fsx_tables *tables, int device, uint64_t ino)
{
    uint64_t *opened;

    pthread_mutex_lock(&tables->mutex);
    opened = fsx_map_find(&tables->opened, ino);
    if (opened != NULL) {
        *opened -= REFERENCE;
        if (*opened < REFERENCE) {
            unregister_file(device, (uint32_t)*opened);
            (void)fsx_map_remove(&tables->opened, ino);
        }
    }
    pthread_mutex_unlock(&tables->mutex);
}

bool
fsx_tables_is_passing(struct fsx_tables *tables, uint64_t ino)
{
    const uint64_t *opened;
    bool is_passing;

    pthread_mutex_lock(&tables->mutex);
    opened = fsx_map_find(&tables->opened, ino);
    is_passing = opened != NULL && (*opened & (REFERENCE - 1)) != 0;
    pthread_mutex_unlock(&tables->mutex);
    return is_passing;
}

/* --- names --- */

static uint64_t
hash_of(uint64_t parent, const char *name)
{
    uint64_t hash = fsx_map_spread(parent) ^ UINT64_C(0xCBF29CE484222325); /* FNV-1a */

    for (; *name != '\0'; name++) {
        hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001B3);
    }
    return hash == 0 ? 1 : hash;
}

static uint64_t
now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

bool
fsx_tables_is_absent(struct fsx_tables *tables, uint64_t parent, const char *name)
{
    const uint64_t *until;
    bool found;

    pthread_mutex_lock(&tables->mutex);
    until = fsx_map_find(&tables->absent, hash_of(parent, name));
    found = until != NULL && *until >= now_ms();
    pthread_mutex_unlock(&tables->mutex);
    return found;
}

void
fsx_tables_present(struct fsx_tables *tables, uint64_t parent, const char *name)
{
    pthread_mutex_lock(&tables->mutex);
    if (tables->absent.count != 0) {
        (void)fsx_map_remove(&tables->absent, hash_of(parent, name));
    }
    pthread_mutex_unlock(&tables->mutex);
}

static void
drop_expired(struct fsx_map *absent, uint64_t now)
{
    struct fsx_map left = {0};

    for (size_t i = 0; i < absent->room; i++) {
        struct fsx_map_slot slot = absent->slots[i];
        if (slot.key != 0 && slot.value >= now && !fsx_map_put(&left, slot.key, slot.value)) {
            fsx_map_clear(&left);
            return; /* no memory: then all stay */
        }
    }
    fsx_map_clear(absent);
    *absent = left;
}

uint64_t
fsx_tables_absent(struct fsx_tables *tables, uint64_t parent, const char *name)
{
    uint64_t held = tables->timeout_ns < FSX_ABSENT_NS ? tables->timeout_ns : FSX_ABSENT_NS;
    uint64_t now = now_ms(), until = now + held / 1000000 + 1000;
    bool noted;

    pthread_mutex_lock(&tables->mutex);
    if (tables->absent.count >= FSX_ABSENT && now - tables->swept_ms >= SWEPT_EVERY_MS) {
        drop_expired(&tables->absent, now);
        tables->swept_ms = now;
    }
    noted = tables->absent.count < FSX_ABSENT &&
            fsx_map_put(&tables->absent, hash_of(parent, name), until);
    pthread_mutex_unlock(&tables->mutex);
    return noted ? held : 0;
}

static struct fsx_named *
slot_of(const struct fsx_tables *tables, uint64_t ino)
{
    return &tables->names[ino % FSX_NAMES]; /* files made together have numbers side by side */
}

void
fsx_tables_name(struct fsx_tables *tables, uint64_t ino, uint64_t parent, uint32_t generation,
                const char *name)
{
    struct fsx_named *slot;
    char *copy;

    if (tables->names == NULL) {
        return;
    }
    slot = slot_of(tables, ino);
    pthread_mutex_lock(&tables->mutex);
    if (slot->ino != ino || slot->parent != parent || slot->name == NULL ||
        strcmp(slot->name, name) != 0) {
        copy = strdup(name);
        free(slot->name);
        *slot = (struct fsx_named){copy == NULL ? 0 : ino, parent, generation, copy};
    }
    slot->generation = generation;
    pthread_mutex_unlock(&tables->mutex);
}

bool
fsx_tables_named(struct fsx_tables *tables, uint64_t ino, struct fsx_named *found, char *name)
{
    struct fsx_named *slot = slot_of(tables, ino);
    bool is_known;

    pthread_mutex_lock(&tables->mutex);
    is_known = slot->ino == ino && ino != 0;
    if (is_known) {
        *found = *slot;
        (void)stpncpy(name, slot->name, FSX_NAME_MAX);
        name[FSX_NAME_MAX] = '\0';
        found->name = name;
    }
    pthread_mutex_unlock(&tables->mutex);
    return is_known;
}

/* --- while `answering` is held --- */

int
fsx_tables_directory(const struct fsx_tables *tables, uint64_t ino)
{
    const uint64_t *fd = fsx_map_find(&tables->directories, ino);
    return fd == NULL ? -1 : (int)(uint32_t)*fd;
}

bool
fsx_tables_is_writable(const struct fsx_tables *tables, uint64_t ino)
{
    const uint64_t *found = fsx_map_find(&tables->directories, ino);
    return found != NULL && (*found & WRITABLE) != 0;
}

bool
fsx_tables_is_pythons(const struct fsx_tables *tables, uint64_t ino)
{
    return fsx_map_find(&tables->pythons, ino) != NULL;
}

bool
fsx_tables_has_room(const struct fsx_tables *tables, int directory)
{
    uint64_t least = atomic_load_explicit(&tables->least_free, memory_order_relaxed);
    struct statfs disk;

    return least == 0 || (fstatfs(directory, &disk) == 0 &&
                          (uint64_t)disk.f_bfree * (uint64_t)disk.f_frsize >= least);
}
