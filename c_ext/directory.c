/* A whole directory in one call: what a walk needs of each entry, in the order of an S3 listing. */
#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define READ_BYTES (256 * 1024)
#define MOST_MARKS 8
#define NAME_BYTES 256      /* NAME_MAX and its end */
#define NAMES_BYTES 65536   /* XATTR_LIST_MAX: all names of one entry fit */
#define FSX_LISTXATTRAT 465 /* Linux 6.13; one number on all but alpha */

/* --- no PyObject, any thread --- */

/* The kernel's struct linux_dirent64, which no header exports. */
struct record {
    uint64_t inode;
    int64_t next_offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* What Python unpacks: read_directory_doc. */
struct entry {
    uint8_t kind, reserved[7];
    uint64_t inode;
    int64_t size, mtime_ns, ctime_ns;
    uint32_t mode, uid, gid, nlink;
    int64_t atime_ns, blocks;
    uint8_t marks, reserved_too[7];
};

enum kind { FSX_FILE, FSX_DIRECTORY, FSX_SYMLINK, FSX_OTHER };

struct found {
    size_t name; /* in the arena: an offset, for the arena moves */
    size_t length;
    struct entry entry;
};

struct directory {
    int fd;
    uint64_t device;
    size_t mark_count;
    const char *marks[MOST_MARKS];
    char *names; /* NAMES_BYTES, if there are marks to look for */
    char *arena;
    size_t arena_used, arena_size;
    struct found *found;
    size_t count, room;
};

static int64_t
time_ns(const struct timespec *time)
{
    return (int64_t)time->tv_sec * NS_PER_S + time->tv_nsec;
}

static bool
is_dot_or_dotdot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Room for one more element; NULL if there is no memory. */
static void *
grown(void *array, size_t *room, size_t used, size_t more, size_t size)
{
    if (used + more <= *room) {
        return array;
    }
    size_t wanted = *room == 0 ? 256 : *room * 2;
    while (wanted < used + more) {
        wanted *= 2;
    }
    void *larger = reallocarray(array, wanted, size);
    if (larger != NULL) {
        *room = wanted;
    }
    return larger;
}

static enum kind
kind_of(const struct stat *status, uint64_t device)
{
    if ((uint64_t)status->st_dev != device) {
        return FSX_OTHER;
    }
    switch (status->st_mode & S_IFMT) {
    case S_IFREG:
        return FSX_FILE;
    case S_IFDIR:
        return FSX_DIRECTORY;
    case S_IFLNK:
        return FSX_SYMLINK;
    default:
        return FSX_OTHER;
    }
}

/* llistxattr(2) of a name in the directory. */
static ssize_t
list_xattrs(int fd, const char *name, char *names, size_t size)
{
    char path[sizeof("/proc/self/fd/-2147483648/") + NAME_BYTES];
    long got = syscall(FSX_LISTXATTRAT, fd, name, AT_SYMLINK_NOFOLLOW, names, size);
    if (got >= 0 ||
        (errno != ENOSYS && errno != EPERM)) { /* EPERM: so a filter of calls may answer */
        return got;
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", fd, name); /* twice the time */
    return llistxattr(path, names, size);
}

/* 0 where an entry has no marks: it can carry none, it is gone, or it is not ours to ask. */
static int
unless_it_has_none(int error)
{
    switch (error) {
    case ENODATA:
    case EOPNOTSUPP:
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EACCES:
    case EPERM:
        return 0;
    default:
        return error;
    }
}

/* Which of the marks the entry carries, a bit each. 0 or an errno. */
static int
read_marks(const struct directory *directory, const char *name, uint8_t *marks)
{
    ssize_t got = list_xattrs(directory->fd, name, directory->names, NAMES_BYTES);
    if (got < 0) {
        return unless_it_has_none(errno);
    }
    for (const char *one = directory->names; one < directory->names + got; one += strlen(one) + 1) {
        for (size_t i = 0; i < directory->mark_count; i++) {
            if (strcmp(one, directory->marks[i]) == 0) {
                *marks |= (uint8_t)(1u << i);
            }
        }
    }
    return 0;
}

/* Add what stands under the name, unless it went meanwhile. 0 or an errno. */
static int
add(struct directory *directory, const char *name)
{
    struct stat status;
    size_t length = strlen(name);
    uint8_t marks = 0;

    if (fstatat(directory->fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG
                   ? 0
                   : errno;
    }
    if (length >= NAME_BYTES) {
        return ENAMETOOLONG;
    }
    enum kind kind = kind_of(&status, directory->device);
    if (directory->mark_count > 0 && (kind == FSX_FILE || kind == FSX_DIRECTORY)) {
        int error = read_marks(directory, name, &marks);
        if (error != 0) {
            return error;
        }
    }
    char *arena = grown(directory->arena, &directory->arena_size, directory->arena_used, length + 1,
                        sizeof(*arena));
    if (arena == NULL) {
        return ENOMEM;
    }
    directory->arena = arena;
    struct found *found =
        grown(directory->found, &directory->room, directory->count, 1, sizeof(*found));
    if (found == NULL) {
        return ENOMEM;
    }
    directory->found = found;
    found += directory->count++;
    memcpy(arena + directory->arena_used, name, length);
    found->name = directory->arena_used;
    if (S_ISDIR(status.st_mode)) { /* another device's too */
        arena[directory->arena_used + length++] = '/';
    }
    found->length = length;
    directory->arena_used += length;
    found->entry = (struct entry){
        .kind = (uint8_t)kind,
        .inode = (uint64_t)status.st_ino,
        .size = (int64_t)status.st_size,
        .mtime_ns = time_ns(&status.st_mtim),
        .ctime_ns = time_ns(&status.st_ctim),
        .mode = status.st_mode & 07777,
        .uid = status.st_uid,
        .gid = status.st_gid,
        .nlink = (uint32_t)(status.st_nlink < UINT32_MAX ? status.st_nlink : UINT32_MAX),
        .atime_ns = time_ns(&status.st_atim),
        .blocks = (int64_t)status.st_blocks,
        .marks = marks,
    };
    return 0;
}

static int
by_key(const void *one, const void *other, void *arena)
{
    const struct found *left = one, *right = other;
    size_t common = left->length < right->length ? left->length : right->length;
    int order = memcmp((const char *)arena + left->name, (const char *)arena + right->name, common);
    if (order != 0) {
        return order;
    }
    return left->length < right->length ? -1 : left->length > right->length;
}

/* 0 or an errno. */
static int
read_all(struct directory *directory)
{
    int error = 0;
    char *buffer = malloc(READ_BYTES);
    directory->names = directory->mark_count > 0 ? malloc(NAMES_BYTES) : NULL;
    if (buffer == NULL || (directory->mark_count > 0 && directory->names == NULL)) {
        free(buffer);
        return ENOMEM;
    }
    for (;;) {
        long got = syscall(SYS_getdents64, directory->fd, buffer, (size_t)READ_BYTES);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            error = got < 0 ? errno : 0;
            break;
        }
        for (long position = 0; position < got && error == 0;) {
            const struct record *record = (const struct record *)(const void *)(buffer + position);
            position += record->length;
            if (!is_dot_or_dotdot(record->name)) {
                error = add(directory, record->name);
            }
        }
        if (error != 0) {
            break;
        }
    }
    free(buffer);
    if (error == 0 && directory->count > 1) {
        qsort_r(directory->found, directory->count, sizeof(*directory->found), by_key,
                directory->arena);
    }
    return error;
}

/* --- glue --- */

/* ([prefix + key, ...], entries) of what was read. */
static PyObject *
as_python(const struct directory *directory, const char *prefix, size_t prefix_size)
{
    PyObject *keys = PyList_New((Py_ssize_t)directory->count);
    PyObject *entries =
        PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(directory->count * sizeof(struct entry)));
    if (keys == NULL || entries == NULL) {
        goto fail;
    }
    char *packed = PyBytes_AS_STRING(entries);
    for (size_t i = 0; i < directory->count; i++) {
        const struct found *found = &directory->found[i];
        PyObject *key = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(prefix_size + found->length));
        if (key == NULL) {
            goto fail;
        }
        memcpy(PyBytes_AS_STRING(key), prefix, prefix_size);
        memcpy(PyBytes_AS_STRING(key) + prefix_size, directory->arena + found->name, found->length);
        PyList_SET_ITEM(keys, (Py_ssize_t)i, key);
        memcpy(packed + i * sizeof(struct entry), &found->entry, sizeof(struct entry));
    }
    return Py_BuildValue("(NN)", keys, entries);

fail:
    Py_XDECREF(keys);
    Py_XDECREF(entries);
    return NULL;
}

PyDoc_STRVAR(
    read_directory_doc,
    "read_directory(fd, device, prefix, marks, /)\n--\n\n"
    "What stands in a directory: (keys, entries), sorted by key.\n\n"
    "A key is the prefix and a name, with a slash behind it if it is a directory's.\n"
    "entries holds a record for each, to unpack with DIRECTORY_ENTRY: kind (0 file, 1 directory,\n"
    "2 symlink, 3 anything else and whatever lies on another device), inode, size, mtime_ns,\n"
    "ctime_ns, mode (without the type), uid, gid, nlink, atime_ns, blocks, marks (bit i: it "
    "carries\n"
    "the xattr marks[i]). Reads fd, a new one, to its end.\n"
    "What vanishes meanwhile is left out; OSError if anything can't be told.");

static PyObject *
read_directory(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct directory directory = {0};
    unsigned long long device;
    Py_buffer prefix;
    PyObject *marks, *result = NULL;
    int error;

    if (!PyArg_ParseTuple(args, "iKy*O!:read_directory", &directory.fd, &device, &prefix,
                          &PyTuple_Type, &marks)) {
        return NULL;
    }
    directory.device = device;
    if (PyTuple_GET_SIZE(marks) > MOST_MARKS) {
        PyErr_Format(PyExc_ValueError, "over %d marks", MOST_MARKS);
        goto out;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(marks); i++) {
        struct fsx_name name;
        if (!fsx_name_converter(PyTuple_GET_ITEM(marks, i), &name)) {
            goto out;
        }
        directory.marks[directory.mark_count++] = name.text;
    }
    Py_BEGIN_ALLOW_THREADS
    error = read_all(&directory);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    else {
        result = as_python(&directory, prefix.buf, (size_t)prefix.len);
    }

out:
    free(directory.names);
    free(directory.arena);
    free(directory.found);
    PyBuffer_Release(&prefix);
    return result;
}

static PyMethodDef methods[] = {
    {"read_directory", read_directory, METH_VARARGS, read_directory_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_directory_exec(PyObject *module)
{
    _Static_assert(sizeof(struct entry) == 80, "DIRECTORY_ENTRY says how it is laid out");
    if (PyModule_AddStringConstant(module, "DIRECTORY_ENTRY", "=B7xQqqqIIIIqqB7x") < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, methods);
}
