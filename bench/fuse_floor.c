/* The least that a FUSE server can do, as the floor under the mount's figures: one thread that
 * reads a request from /dev/fuse and answers it, with no table, no journal and nobody behind it.
 *
 *     cc -O2 -o fuse_floor fuse_floor.c && ./fuse_floor MOUNTPOINT DIRECTORY FILES LOOK_US
 *
 * Only names like f00000 are served. FILES of them are there, answered from memory: what is left is
 * the kernel's share and that of waking up. With FILES 0 each is a file of DIRECTORY: a lookup is
 * one statx of it, an open registers it for FUSE passthrough, a create makes it. LOOK_US: so long
 * the thread looks for the next request after an answer before it sleeps; 0 sleeps at once, in
 * read(2), as most servers do. Root; ends when unmounted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As c_ext/channel_wire.h: what older headers lack. */
#define INIT_EXT (UINT64_C(1) << 30)
#define PASSTHROUGH (UINT64_C(1) << 37)
#define OPEN_PASSTHROUGH (UINT32_C(1) << 7)
#define DEV_IOC_BACKING_OPEN _IOW(229, 1, struct backing_map)
#define LARGEST ((size_t)132 << 10)
#define HELD_S 3600
#define DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
#define FIRST_NODE UINT64_C(2)

struct backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};

struct init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, max_stack_depth, unused[6];
};

struct open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};

struct created {
    struct fuse_entry_out entry;
    struct open_out opened;
};

struct floor_server {
    int device, directory;
    uint64_t files, look_ns;
};

static void
die(const char *what)
{
    fprintf(stderr, "fuse_floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void
reply(const struct floor_server *server, uint64_t unique, int error, const void *body, size_t size)
{
    struct fuse_out_header head = {
        .len = (uint32_t)(sizeof head + size), .error = -error, .unique = unique};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)body, size}};

    (void)writev(server->device, parts, size == 0 ? 1 : 2); /* ENOENT: nobody waits any more */
}

/* The file's number; -1: none is called so. */
static int64_t
number_of(const char *name)
{
    char *end;
    unsigned long number;

    if (name[0] != 'f' || name[1] < '0' || name[1] > '9') {
        return -1;
    }
    number = strtoul(name + 1, &end, 10);
    return *end == '\0' ? (int64_t)number : -1;
}

static void
name_of(uint64_t node, char name[32])
{
    (void)snprintf(name, 32, "f%05llu", (unsigned long long)(node - FIRST_NODE));
}

/* 0 or an errno. */
static int
attributes(const struct floor_server *server, uint64_t node, struct fuse_attr *attr)
{
    struct stat status;
    char name[32];

    *attr = (struct fuse_attr){.ino = node, .nlink = 1, .blksize = 4096, .blocks = 8, .size = 4096};
    attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
    if (node == FUSE_ROOT_ID || server->files != 0) {
        return node - FIRST_NODE < server->files || node == FUSE_ROOT_ID ? 0 : ENOENT;
    }
    name_of(node, name);
    if (fstatat(server->directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno;
    }
    attr->size = (uint64_t)status.st_size;
    attr->mtime = (uint64_t)status.st_mtime;
    return 0;
}

/* 0 or an errno. */
static int
entry(const struct floor_server *server, const char *name, struct fuse_entry_out *found)
{
    int64_t number = number_of(name);

    *found = (struct fuse_entry_out){.entry_valid = HELD_S, .attr_valid = HELD_S};
    if (number < 0) {
        return ENOENT;
    }
    found->nodeid = FIRST_NODE + (uint64_t)number;
    return attributes(server, found->nodeid, &found->attr);
}

static void
lookup(const struct floor_server *server, uint64_t unique, const char *name)
{
    struct fuse_entry_out found;
    int error = entry(server, name, &found);

    reply(server, unique, error, &found, error == 0 ? sizeof found : 0);
}

/* Who closes finds the descriptor and the backing id in the handle. 0 or an errno. */
static int
opened(const struct floor_server *server, uint64_t node, int flags, struct open_out *out)
{
    struct backing_map map;
    char name[32];
    int id;

    *out = (struct open_out){.open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH};
    if (server->files != 0) {
        return 0;
    }
    name_of(node, name);
    map = (struct backing_map){.fd = openat(server->directory, name, flags | O_CLOEXEC, 0644)};
    if (map.fd < 0) {
        return errno;
    }
    id = ioctl(server->device, DEV_IOC_BACKING_OPEN, &map);
    if (id <= 0) {
        (void)close(map.fd);
        return EIO;
    }
    out->open_flags = OPEN_PASSTHROUGH | FOPEN_NOFLUSH;
    out->backing_id = id;
    out->fh = (uint64_t)id << 32 | (uint32_t)map.fd;
    return 0;
}

static void
open_file(const struct floor_server *server, const struct fuse_in_header *head, const char *body)
{
    struct fuse_open_in in;
    struct open_out out;
    int error;

    memcpy(&in, body, sizeof in);
    error = opened(server, head->nodeid, (int)(in.flags & O_ACCMODE), &out);
    reply(server, head->unique, error, &out, error == 0 ? sizeof out : 0);
}

static void
create_file(const struct floor_server *server, uint64_t unique, const char *name)
{
    struct created made = {0};
    int64_t number = number_of(name);
    int error = number < 0 ? EINVAL : 0;

    if (error == 0) {
        error =
            opened(server, FIRST_NODE + (uint64_t)number, O_RDWR | O_CREAT | O_EXCL, &made.opened);
    }
    if (error == 0) {
        error = entry(server, name, &made.entry);
    }
    reply(server, unique, error, &made, error == 0 ? sizeof made : 0);
}

static void
release(const struct floor_server *server, const struct fuse_in_header *head, const char *body)
{
    uint64_t handle;
    uint32_t id;

    memcpy(&handle, body, sizeof handle);
    id = (uint32_t)(handle >> 32);
    reply(server, head->unique, 0, NULL, 0);
    if (id != 0) {
        (void)ioctl(server->device, DEV_IOC_BACKING_CLOSE, &id);
        (void)close((int)(uint32_t)handle);
    }
}

static void
initialise(const struct floor_server *server, uint64_t unique, const void *body)
{
    uint64_t wanted = INIT_EXT | PASSTHROUGH | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 |
                      FUSE_BIG_WRITES | FUSE_MAX_PAGES | FUSE_ATOMIC_O_TRUNC;
    struct {
        uint32_t major, minor, max_readahead, flags, flags2;
    } offered;
    struct init_out out = {.major = FUSE_KERNEL_VERSION,
                           .minor = FUSE_KERNEL_MINOR_VERSION,
                           .max_readahead = 128 << 10,
                           .max_write = 64 << 10,
                           .max_pages = 16,
                           .time_gran = 1,
                           .max_stack_depth = 1};

    memcpy(&offered, body, sizeof offered);
    wanted &= offered.flags | (uint64_t)offered.flags2 << 32;
    out.flags = (uint32_t)wanted;
    out.flags2 = (uint32_t)(wanted >> 32);
    reply(server, unique, 0, &out, sizeof out);
}

static void
answer(const struct floor_server *server, const char *request)
{
    struct fuse_attr_out attr = {.attr_valid = HELD_S};
    const char *body = request + sizeof(struct fuse_in_header);
    struct fuse_in_header head;
    int error = 0;

    memcpy(&head, request, sizeof head);
    switch (head.opcode) {
    case FUSE_INIT:
        initialise(server, head.unique, body);
        break;
    case FUSE_LOOKUP:
        lookup(server, head.unique, body);
        break;
    case FUSE_GETATTR:
        error = attributes(server, head.nodeid, &attr.attr);
        reply(server, head.unique, error, &attr, error == 0 ? sizeof attr : 0);
        break;
    case FUSE_CREATE:
        create_file(server, head.unique, body + sizeof(struct fuse_create_in));
        break;
    case FUSE_OPEN:
        open_file(server, &head, body);
        break;
    case FUSE_UNLINK:
        error = unlinkat(server->directory, body, 0) < 0 ? errno : 0;
        reply(server, head.unique, error, NULL, 0);
        break;
    case FUSE_RELEASE:
        release(server, &head, body);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break; /* no answer is waited for */
    default:
        reply(server, head.unique, ENOSYS, NULL, 0);
    }
}

/* False when unmounted. */
static int
next_request(const struct floor_server *server, char *buffer)
{
    uint64_t until = now_ns() + server->look_ns;
    struct pollfd waited = {.fd = server->device, .events = POLLIN};

    for (;;) {
        if (read(server->device, buffer, LARGEST) > 0) {
            return 1;
        }
        if (errno == EAGAIN && now_ns() < until) {
            (void)sched_yield();
        }
        else if (errno == EAGAIN) {
            (void)poll(&waited, 1, -1);
        }
        else if (errno != EINTR && errno != ENOENT) {
            return 0;
        }
    }
}

int
main(int argc, char **argv)
{
    struct floor_server server;
    char options[128], *buffer = malloc(LARGEST);

    if (argc != 5 || buffer == NULL) {
        fprintf(stderr, "usage: fuse_floor MOUNTPOINT DIRECTORY FILES LOOK_US\n");
        return 2;
    }
    server.directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (server.directory < 0) {
        die(argv[2]);
    }
    server.files = strtoul(argv[3], NULL, 10);
    server.look_ns = strtoul(argv[4], NULL, 10) * 1000;
    server.device = open("/dev/fuse", O_RDWR | O_CLOEXEC | (server.look_ns == 0 ? 0 : O_NONBLOCK));
    if (server.device < 0) {
        die("/dev/fuse");
    }
    (void)snprintf(options, sizeof options,
                   "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions", server.device);
    if (mount("fuse_floor", argv[1], "fuse.floor", MS_NOSUID | MS_NODEV, options) < 0) {
        die(argv[1]);
    }
    while (next_request(&server, buffer)) {
        answer(&server, buffer);
    }
    free(buffer);
    return 0;
}
