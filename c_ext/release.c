/* Giving the data of synced files back, for many files in one call without the GIL: the marks, and
 * later, when these are durable, the holes. The order is tree/releasing.py's. */
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define BLOCK_MAX 65536 /* tree/stub_data.py */

enum marking {
    FSX_MARKED_ALONE, /* with a lease */
    FSX_MARKED,
    FSX_OPEN,
    FSX_CHANGED,
    FSX_LINKED,
    FSX_REPLACED,
    FSX_KEPT,
    FSX_UNOPENED, /* errno says why */
    FSX_UNMARKED, /* likewise */
};

enum punching {
    FSX_PUNCHED,
    FSX_LATE, /* the mark and the data stay */
    FSX_WRITTEN,
    FSX_WANTED,
    FSX_NO_HOLES,
    FSX_UNPUNCHED, /* errno says why; the mark stays */
};

/* --- no PyObject, any thread --- */

struct marked {
    /* what was judged */
    const char *path;
    int fd;
    unsigned long long ino;
    long long size, mtime_ns, ctime_ns, mode, uid, gid, nlink;
    const void *mark;
    Py_ssize_t mark_size;
    /* what came of it */
    enum marking outcome;
    int error;
    long long marked_ns; /* its ctime then */
};

struct punched {
    int fd;
    int is_alone;
    long long size, mtime_ns, ctime_ns;
    enum punching outcome;
    int error;
    struct stat status;
};

static bool
is_as_judged(const struct marked *one, const struct stat *now)
{
    return now->st_size == one->size && fsx_time_ns(&now->st_mtim) == one->mtime_ns &&
           fsx_time_ns(&now->st_ctim) == one->ctime_ns && (now->st_mode & 07777) == one->mode &&
           now->st_uid == one->uid && now->st_gid == one->gid;
}

/* Alone with it: whoever opens it from now on waits, until the descriptor is closed. */
static enum marking
take_lease(int fd)
{
    if (fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {
        return FSX_MARKED_ALONE;
    }
    return errno == EAGAIN ? FSX_OPEN : FSX_MARKED;
}

/* Whether the attribute is there; -1 where that can't be told: errno says why. */
static int
is_kept(int fd, const char *kept)
{
    if (*kept == '\0') {
        return 0;
    }
    if (fgetxattr(fd, kept, NULL, 0) >= 0) {
        return 1;
    }
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -1;
}

static enum marking
mark_open(struct marked *one, dev_t device, const char *xattr, const char *kept)
{
    enum marking lease;
    struct stat now;
    int keeps;

    if (fstat(one->fd, &now) < 0) {
        one->error = errno;
        return FSX_UNMARKED;
    }
    if (now.st_ino != one->ino || now.st_dev != device || !S_ISREG(now.st_mode)) {
        return FSX_REPLACED;
    }
    lease = take_lease(one->fd);
    if (lease == FSX_OPEN) {
        return FSX_OPEN;
    }
    if (fstat(one->fd, &now) < 0) { /* again: now nobody can write to it any more */
        one->error = errno;
        return FSX_UNMARKED;
    }
    if (!is_as_judged(one, &now)) {
        return FSX_CHANGED;
    }
    if ((long long)now.st_nlink != one->nlink) {
        return FSX_LINKED;
    }
    keeps = is_kept(one->fd, kept);
    if (keeps != 0) {
        one->error = keeps < 0 ? errno : 0;
        return keeps < 0 ? FSX_UNMARKED : FSX_KEPT;
    }
    if (fsetxattr(one->fd, xattr, one->mark, (size_t)one->mark_size, XATTR_CREATE) < 0) {
        one->error = errno;
        return FSX_UNMARKED;
    }
    if (fstat(one->fd, &now) < 0) {
        one->error = errno;
        (void)fremovexattr(one->fd, xattr);
        return FSX_UNMARKED;
    }
    one->marked_ns = fsx_time_ns(&now.st_ctim);
    return lease;
}

static void
mark(struct marked *one, int root_fd, dev_t device, const char *xattr, const char *kept)
{
    one->fd = fsx_open_beneath(root_fd, one->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (one->fd < 0) {
        one->error = errno;
        one->outcome = FSX_UNOPENED;
        return;
    }
    one->outcome = mark_open(one, device, xattr, kept);
    if (one->outcome != FSX_MARKED_ALONE && one->outcome != FSX_MARKED) {
        (void)close(one->fd);
        one->fd = -1;
    }
}

static bool
is_past(double deadline_s)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9 > deadline_s;
}

static int
punch_hole(int fd, long long size)
{
    long long length = (size + BLOCK_MAX - 1) / BLOCK_MAX * BLOCK_MAX;
    int result;

    do { /* to the end of the last block: a part of a block is only zeroed, and kept */
        result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)length);
    } while (result < 0 && errno == EINTR);
    return result;
}

static enum punching
punch_open(struct punched *one, double deadline_s, const char *xattr)
{
    struct timespec times[2];
    bool is_touched;

    if (fstat(one->fd, &one->status) < 0) {
        one->error = errno;
        return FSX_UNPUNCHED;
    }
    /* ctime: a mode or attribute set meanwhile would be taken for what the row knows. */
    is_touched = one->status.st_size != one->size ||
                 fsx_time_ns(&one->status.st_mtim) != one->mtime_ns ||
                 fsx_time_ns(&one->status.st_ctim) != one->ctime_ns;
    if (is_past(deadline_s)) {
        /* Somebody may have been let in, and may be loading it by its mark. */
        return is_touched ? FSX_WRITTEN : FSX_LATE;
    }
    if (is_touched || (one->is_alone && fcntl(one->fd, F_GETLEASE) != F_WRLCK)) {
        if (fremovexattr(one->fd, xattr) < 0) {
            one->error = errno;
            return FSX_UNPUNCHED;
        }
        return is_touched ? FSX_WRITTEN : FSX_WANTED;
    }
    if (one->size > 0 && punch_hole(one->fd, one->size) < 0) {
        one->error = errno;
        if (one->error == EOPNOTSUPP) { /* then nothing was punched; after any other it may be */
            (void)fremovexattr(one->fd, xattr);
            return FSX_NO_HOLES;
        }
        return FSX_UNPUNCHED;
    }
    times[0] = one->status.st_atim;
    times[1] = fsx_timespec(one->mtime_ns);
    if (futimens(one->fd, times) < 0 || fstat(one->fd, &one->status) < 0) {
        one->error = errno;
        return FSX_UNPUNCHED;
    }
    return FSX_PUNCHED;
}

/* --- glue --- */

/* (path, inode, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, mark) */
static int
marked_from(PyObject *object, struct marked *one)
{
    struct fsx_name name;

    if (!PyArg_ParseTuple(object, "O&KLLLLLLLy#", fsx_name_converter, &name, &one->ino, &one->size,
                          &one->mtime_ns, &one->ctime_ns, &one->mode, &one->uid, &one->gid,
                          &one->nlink, &one->mark, &one->mark_size)) {
        return -1;
    }
    one->path = name.text;
    return 0;
}

PyDoc_STRVAR(
    mark_released_doc,
    "mark_released(root_fd, device, xattr, kept, files, /)\n--\n\n"
    "Mark files, each alone with it where the kernel grants a lease, if they are as judged and\n"
    "have no attribute named kept (empty: any).\n\n"
    "files: tuples (path, inode, size, mtime_ns, ctime_ns, mode, uid, gid, nlink, mark).\n"
    "Returns a list of (MARK_*, descriptor, errno, ctime_ns): the descriptor of what was marked\n"
    "holds the lease and is the caller's, the errno tells why it was not opened or marked, the\n"
    "ctime is that of the marked file.");

static PyObject *
mark_released(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *files, *result = NULL;
    struct marked *marked = NULL;
    struct fsx_name xattr, kept;
    unsigned long long device;
    Py_ssize_t count;
    int root_fd;

    if (!PyArg_ParseTuple(args, "iKO&O&O:mark_released", &root_fd, &device, fsx_name_converter,
                          &xattr, fsx_name_converter, &kept, &sequence) ||
        (files = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(files);
    marked = PyMem_Calloc((size_t)count + 1, sizeof *marked);
    if (marked == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (marked_from(PyTuple_GET_ITEM(files, i), &marked[i]) < 0) {
            goto done;
        }
    }
    result = PyList_New(count); /* first: once files are marked, nothing big may fail */
    if (result == NULL) {
        goto done;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        mark(&marked[i], root_fd, (dev_t)device, xattr.text, kept.text);
    }
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *one = Py_BuildValue("(iiiL)", (int)marked[i].outcome, marked[i].fd,
                                      marked[i].error, marked[i].marked_ns);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
    for (Py_ssize_t i = 0; result == NULL && i < count; i++) { /* the marks stay, and the data */
        if (marked[i].fd >= 0) {
            (void)close(marked[i].fd);
        }
    }
done:
    PyMem_Free(marked);
    Py_DECREF(files);
    return result;
}

PyDoc_STRVAR(
    punch_released_doc,
    "punch_released(xattr, files, deadline_s, /)\n--\n\n"
    "Make holes of the data of marked files, give them their mtime, and close them.\n\n"
    "files: tuples (descriptor, has a lease, size, mtime_ns, ctime_ns since the mark); one that\n"
    "was changed since loses its mark again. After deadline_s of the monotonic clock nothing is\n"
    "punched any more. Returns a list of (PUNCH_*, errno, status or None), the status as of\n"
    "look(), without what comes after blocks.");

static PyObject *
punch_result(const struct punched *one)
{
    PyObject *more[3] = {NULL, NULL, NULL};
    PyObject *status;

    if (one->outcome != FSX_PUNCHED && one->outcome != FSX_LATE) {
        return Py_BuildValue("(iiO)", (int)one->outcome, one->error, Py_None);
    }
    status = fsx_status_tuple(&one->status, more);
    return status == NULL ? NULL : Py_BuildValue("(iiN)", (int)one->outcome, one->error, status);
}

static PyObject *
punch_released(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *files, *result = NULL;
    struct punched *punched = NULL;
    struct fsx_name xattr;
    Py_ssize_t count;
    double deadline_s;

    if (!PyArg_ParseTuple(args, "O&Od:punch_released", fsx_name_converter, &xattr, &sequence,
                          &deadline_s) ||
        (files = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(files);
    punched = PyMem_Calloc((size_t)count + 1, sizeof *punched);
    if (punched == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(files, i), "ipLLL", &punched[i].fd,
                              &punched[i].is_alone, &punched[i].size, &punched[i].mtime_ns,
                              &punched[i].ctime_ns)) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        punched[i].outcome = punch_open(&punched[i], deadline_s, xattr.text);
        (void)close(punched[i].fd); /* at once: somebody may be waiting to get in */
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = punch_result(&punched[i]);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    PyMem_Free(punched);
    Py_DECREF(files);
    return result;
}

static PyMethodDef methods[] = {
    {"mark_released", mark_released, METH_VARARGS, mark_released_doc},
    {"punch_released", punch_released, METH_VARARGS, punch_released_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_release_exec(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"MARK_ALONE", FSX_MARKED_ALONE}, {"MARK_DONE", FSX_MARKED},
        {"MARK_OPEN", FSX_OPEN},          {"MARK_CHANGED", FSX_CHANGED},
        {"MARK_LINKED", FSX_LINKED},      {"MARK_REPLACED", FSX_REPLACED},
        {"MARK_KEPT", FSX_KEPT},          {"MARK_UNOPENED", FSX_UNOPENED},
        {"MARK_FAILED", FSX_UNMARKED},    {"PUNCH_DONE", FSX_PUNCHED},
        {"PUNCH_LATE", FSX_LATE},         {"PUNCH_WRITTEN", FSX_WRITTEN},
        {"PUNCH_WANTED", FSX_WANTED},     {"PUNCH_NO_HOLES", FSX_NO_HOLES},
        {"PUNCH_FAILED", FSX_UNPUNCHED},
    };

    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    return PyModule_AddFunctions(module, methods);
}
