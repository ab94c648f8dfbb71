/* What stands at paths: all that a decision needs of each, in one call without the GIL. */
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define MOST_NAMES 8
#define LARGEST_VALUE 65536 /* XATTR_SIZE_MAX */

/* --- no PyObject, any thread --- */

struct names {
    size_t count;
    const char *texts[MOST_NAMES]; /* the value of the first one is read */
};

struct looked {
    int error;
    struct stat status;
    unsigned present; /* a bit for each of the names */
    char *mark;
    size_t mark_size;
    char *target;
    size_t target_size;
};

int64_t
fsx_time_ns(const struct timespec *time)
{
    return (int64_t)time->tv_sec * NS_PER_S + time->tv_nsec;
}

struct timespec
fsx_timespec(int64_t ns)
{
    int64_t seconds = ns / NS_PER_S;
    int64_t rest = ns % NS_PER_S;
    if (rest < 0) { /* before 1970: C rounds towards zero, tv_nsec is never negative */
        seconds--;
        rest += NS_PER_S;
    }
    return (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)rest};
}

int
fsx_open_beneath(int root_fd, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long fd;

    do {
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof how);
    } while (fd < 0 && errno == EINTR);
    return (int)fd;
}

/* It has none, can have none, or may not be asked: as good as none (tree/identify.py says why). */
static bool
means_none(int error)
{
    return error == ENODATA || error == EOPNOTSUPP || error == EACCES || error == EPERM;
}

/* The mark of the file behind a name of /proc: 0 or an errno. */
static int
read_mark(const char *place, const char *name, struct looked *out)
{
    char small[2048];
    char *value = small;
    ssize_t size = getxattr(place, name, small, sizeof small);

    if (size < 0 && errno == ERANGE) {
        value = malloc(LARGEST_VALUE);
        if (value == NULL) {
            return ENOMEM;
        }
        size = getxattr(place, name, value, LARGEST_VALUE);
    }
    if (size < 0) {
        int error = means_none(errno) ? 0 : errno;
        if (value != small) {
            free(value);
        }
        return error;
    }
    if (value == small) {
        value = malloc((size_t)size + 1);
        if (value == NULL) {
            return ENOMEM;
        }
        memcpy(value, small, (size_t)size);
    }
    out->mark = value;
    out->mark_size = (size_t)size;
    out->present |= 1;
    return 0;
}

/* Which of the names a file has: 0 or an errno. */
static int
list_names(const char *place, const struct names *names, struct looked *out)
{
    char listed[2048];
    ssize_t size = listxattr(place, listed, sizeof listed);

    if (size < 0 && errno == ERANGE) { /* too many: each is asked for */
        for (size_t i = 0; i < names->count; i++) {
            if (getxattr(place, names->texts[i], NULL, 0) >= 0) {
                out->present |= 1u << i;
            }
            else if (!means_none(errno)) {
                return errno;
            }
        }
        return 0;
    }
    if (size < 0) {
        return means_none(errno) ? 0 : errno;
    }
    for (const char *name = listed; name < listed + size; name += strlen(name) + 1) {
        for (size_t i = 0; i < names->count; i++) {
            if (strcmp(name, names->texts[i]) == 0) {
                out->present |= 1u << i;
            }
        }
    }
    return 0;
}

static int
read_target(int fd, struct looked *out)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(fd, "", target, sizeof target);

    if (size < 0) {
        return errno;
    }
    out->target = malloc((size_t)size + 1);
    if (out->target == NULL) {
        return ENOMEM;
    }
    memcpy(out->target, target, (size_t)size);
    out->target_size = (size_t)size;
    return 0;
}

static int
look_at(int fd, const struct names *names, struct looked *out)
{
    char place[32];
    int error = 0;

    if (fstat(fd, &out->status) < 0) {
        return errno;
    }
    if (S_ISLNK(out->status.st_mode)) {
        return read_target(fd, out);
    }
    (void)snprintf(place, sizeof place, "/proc/self/fd/%d", fd); /* it may be an O_PATH one */
    if (S_ISREG(out->status.st_mode)) {
        if (names->count > 1) {
            error = list_names(place, names, out);
        }
        if (error == 0 && (names->count == 1 || (out->present & 1) != 0)) {
            out->present &= ~1u;
            error = read_mark(place, names->texts[0], out);
        }
    }
    else if (S_ISDIR(out->status.st_mode) && names->count > 1) {
        error = list_names(place, names, out);
    }
    return error;
}

static void
look(int root_fd, const char *path, const struct names *names, struct looked *out)
{
    int fd = fsx_open_beneath(root_fd, path, O_PATH | O_NOFOLLOW);

    if (fd < 0) {
        out->error = errno;
        return;
    }
    out->error = look_at(fd, names, out);
    (void)close(fd);
}

/* --- glue --- */

static bool
is_absent(int error)
{
    return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENAMETOOLONG;
}

PyObject *
fsx_status_tuple(const struct stat *status, PyObject *more[3])
{
    const long long numbers[] = {
        (long long)status->st_mode,    (long long)status->st_dev,     0, /* the inode: unsigned */
        (long long)status->st_size,    fsx_time_ns(&status->st_mtim), fsx_time_ns(&status->st_ctim),
        (long long)status->st_uid,     (long long)status->st_gid,     (long long)status->st_nlink,
        fsx_time_ns(&status->st_atim), (long long)status->st_blocks,
    };
    const Py_ssize_t count = sizeof numbers / sizeof *numbers;
    Py_ssize_t extra = 0;
    PyObject *tuple;

    while (extra < 3 && more[extra] != NULL) {
        extra++;
    }
    tuple = PyTuple_New(count + extra);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *number =
            i == 2 ? PyLong_FromUnsignedLongLong(status->st_ino) : PyLong_FromLongLong(numbers[i]);
        if (number == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, number);
    }
    for (Py_ssize_t i = 0; i < extra; i++) {
        if (tuple == NULL) {
            Py_DECREF(more[i]);
        }
        else {
            PyTuple_SET_ITEM(tuple, count + i, more[i]);
        }
    }
    return tuple;
}

static PyObject *
bytes_or_none(const char *text, size_t size)
{
    return text == NULL ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize(text, (Py_ssize_t)size);
}

static PyObject *
found_tuple(const struct looked *looked)
{
    PyObject *more[3] = {PyLong_FromUnsignedLong(looked->present),
                         bytes_or_none(looked->mark, looked->mark_size),
                         bytes_or_none(looked->target, looked->target_size)};

    if (more[0] == NULL || more[1] == NULL || more[2] == NULL) {
        Py_XDECREF(more[0]);
        Py_XDECREF(more[1]);
        Py_XDECREF(more[2]);
        return NULL;
    }
    return fsx_status_tuple(&looked->status, more);
}

/* The tuple of xattr names: 0, or -1 with an exception set. Borrows. */
static int
names_from(PyObject *object, struct names *names)
{
    if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) < 1 ||
        PyTuple_GET_SIZE(object) > MOST_NAMES) {
        PyErr_SetString(PyExc_TypeError, "expected a tuple of 1 to 8 attribute names");
        return -1;
    }
    names->count = (size_t)PyTuple_GET_SIZE(object);
    for (size_t i = 0; i < names->count; i++) {
        struct fsx_name name;
        if (!fsx_name_converter(PyTuple_GET_ITEM(object, (Py_ssize_t)i), &name)) {
            return -1;
        }
        names->texts[i] = name.text;
    }
    return 0;
}

PyDoc_STRVAR(
    look_doc,
    "look(root_fd, path, names, /)\n--\n\n"
    "What stands at a path beneath root_fd, through no symlink; None if nothing does.\n\n"
    "(mode, device, inode, size, mtime_ns, ctime_ns, uid, gid, nlink, atime_ns, blocks, present, "
    "mark, target): bit i of present says that it has the extended attribute names[i] "
    "(directories: from 1 on), mark is the value of names[0], target a symlink's.");

static PyObject *
look_one(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct looked looked = {0};
    struct fsx_name path;
    struct names names;
    PyObject *wanted, *result;
    int root_fd;

    if (!PyArg_ParseTuple(args, "iO&O:look", &root_fd, fsx_name_converter, &path, &wanted) ||
        names_from(wanted, &names) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    look(root_fd, path.text, &names, &looked);
    Py_END_ALLOW_THREADS
    if (looked.error == 0) {
        result = found_tuple(&looked);
    }
    else if (is_absent(looked.error)) {
        result = Py_NewRef(Py_None);
    }
    else {
        errno = looked.error;
        result = PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path.object);
    }
    free(looked.mark);
    free(looked.target);
    return result;
}

PyDoc_STRVAR(look_many_doc,
             "look_many(root_fd, paths, names, /)\n--\n\n"
             "The same for many: a list in the order of paths, with an errno where one could not "
             "be looked at.");

static PyObject *
look_result(const struct looked *looked)
{
    if (looked->error == 0) {
        return found_tuple(looked);
    }
    return is_absent(looked->error) ? Py_NewRef(Py_None) : PyLong_FromLong(looked->error);
}

static PyObject *
look_many(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *wanted, *sequence, *paths, *result = NULL;
    struct looked *looked = NULL;
    const char **texts = NULL;
    struct names names;
    Py_ssize_t count;
    int root_fd;

    if (!PyArg_ParseTuple(args, "iOO:look_many", &root_fd, &sequence, &wanted) ||
        names_from(wanted, &names) < 0 || (paths = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(paths);
    looked = PyMem_Calloc((size_t)count + 1, sizeof *looked);
    texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    if (looked == NULL || texts == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct fsx_name name;
        if (!fsx_name_converter(PyTuple_GET_ITEM(paths, i), &name)) {
            goto done;
        }
        texts[i] = name.text;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        look(root_fd, texts[i], &names, &looked[i]);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = look_result(&looked[i]);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    for (Py_ssize_t i = 0; looked != NULL && i < count; i++) {
        free(looked[i].mark);
        free(looked[i].target);
    }
    PyMem_Free(looked);
    PyMem_Free(texts);
    Py_DECREF(paths);
    return result;
}

static PyMethodDef methods[] = {
    {"look", look_one, METH_VARARGS, look_doc},
    {"look_many", look_many, METH_VARARGS, look_many_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_look_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
