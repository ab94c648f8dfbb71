/* The two ends of a hydration: opening a stub; reading what has come, and taking the marks off.
 */
#include "look.h"

#include "hash_range.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define LARGEST_MARK 4096 /* a larger one is not ours: Python says what to make of it */

enum unmarking {
    FSX_SETTLED,
    FSX_OTHER,     /* its mark or its size is another one */
    FSX_UNSETTLED, /* errno says why */
};

/* --- no PyObject, any thread --- */

struct settled {
    int fd;
    const void *mark;
    Py_ssize_t mark_size;
    long long size, mtime_ns, atime_ns;
    enum unmarking outcome;
    int error;
    struct stat status;
};

static enum unmarking
unmark(struct settled *one, const char *xattr)
{
    const struct timespec times[2] = {fsx_timespec(one->atime_ns), fsx_timespec(one->mtime_ns)};
    char mark[LARGEST_MARK];
    ssize_t mark_size;

    if (futimens(one->fd, times) < 0 || fstat(one->fd, &one->status) < 0) {
        one->error = errno;
        return FSX_UNSETTLED;
    }
    mark_size = fgetxattr(one->fd, xattr, mark, sizeof mark);
    if (mark_size < 0 || mark_size != one->mark_size ||
        memcmp(mark, one->mark, (size_t)mark_size) != 0 || one->status.st_size != one->size) {
        return FSX_OTHER;
    }
    if (fremovexattr(one->fd, xattr) < 0 || fstat(one->fd, &one->status) < 0) {
        one->error = errno;
        return FSX_UNSETTLED;
    }
    return FSX_SETTLED;
}

/* --- glue --- */

PyDoc_STRVAR(
    unmark_many_doc,
    "unmark_many(xattr, files, /)\n--\n\n"
    "Give files their times and take their marks off, if these are still the ones that are "
    "given.\n\n"
    "files: tuples (descriptor, mark, size, mtime_ns, atime_ns). Returns a list of (UNMARK_*,\n"
    "errno, status or None), the status as of look(), without what comes after blocks.");

static PyObject *
unmark_result(const struct settled *one)
{
    PyObject *more[3] = {NULL, NULL, NULL};
    PyObject *status;

    if (one->outcome != FSX_SETTLED) {
        return Py_BuildValue("(iiO)", (int)one->outcome, one->error, Py_None);
    }
    status = fsx_status_tuple(&one->status, more);
    return status == NULL ? NULL : Py_BuildValue("(iiN)", (int)one->outcome, 0, status);
}

static PyObject *
unmark_many(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *files, *result = NULL;
    struct settled *settled = NULL;
    struct fsx_name xattr;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "O&O:unmark_many", fsx_name_converter, &xattr, &sequence) ||
        (files = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(files);
    settled = PyMem_Calloc((size_t)count + 1, sizeof *settled);
    if (settled == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct settled *one = &settled[i];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(files, i), "iy#LLL", &one->fd, &one->mark,
                              &one->mark_size, &one->size, &one->mtime_ns, &one->atime_ns)) {
            goto done;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        settled[i].outcome = unmark(&settled[i], xattr.text);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = unmark_result(&settled[i]);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    PyMem_Free(settled);
    Py_DECREF(files);
    return result;
}

struct opened {
    const char *path;
    int fd; /* -1: no regular file stands there, or it could not be opened */
    int error;
    struct stat status;
    ssize_t mark_size; /* -1: it has none */
    char *mark;
};

static void
open_one(int root_fd, const char *xattr, struct opened *one)
{
    char mark[LARGEST_MARK];

    one->mark_size = -1;
    one->fd = fsx_open_beneath(root_fd, one->path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (one->fd < 0 || fstat(one->fd, &one->status) < 0) {
        one->error = errno;
        goto done;
    }
    if (!S_ISREG(one->status.st_mode)) {
        (void)close(one->fd);
        one->fd = -1;
        return;
    }
    one->mark_size = fgetxattr(one->fd, xattr, mark, sizeof mark);
    if (one->mark_size < 0) {
        one->error = errno == ENODATA ? 0 : errno;
        goto done;
    }
    one->mark = malloc((size_t)one->mark_size + 1);
    if (one->mark == NULL) {
        one->error = ENOMEM;
        goto done;
    }
    memcpy(one->mark, mark, (size_t)one->mark_size);
done:
    if (one->error != 0 && one->fd >= 0) {
        (void)close(one->fd);
        one->fd = -1;
    }
}

PyDoc_STRVAR(
    open_marked_doc,
    "open_marked(root_fd, paths, xattr, /)\n--\n\n"
    "Open regular files beneath root_fd for reading and writing, through no symlink.\n\n"
    "A list in the order of paths of (descriptor, status, mark): the status as of look(), without "
    "what comes after blocks; mark is None where the file has none. None instead where no regular "
    "file stands there, an errno where it could not be opened.");

static PyObject *
opened_result(struct opened *one)
{
    PyObject *more[3] = {NULL, NULL, NULL};
    PyObject *status, *result;

    if (one->fd < 0) {
        return one->error == 0 ? Py_NewRef(Py_None) : PyLong_FromLong(one->error);
    }
    status = fsx_status_tuple(&one->status, more);
    if (status == NULL) {
        return NULL;
    }
    result = one->mark == NULL
                 ? Py_BuildValue("(iNO)", one->fd, status, Py_None)
                 : Py_BuildValue("(iNy#)", one->fd, status, one->mark, (Py_ssize_t)one->mark_size);
    if (result != NULL) {
        one->fd = -1; /* it is the caller's */
    }
    return result;
}

static PyObject *
open_marked(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *paths, *result = NULL;
    struct opened *opened = NULL;
    struct fsx_name xattr;
    Py_ssize_t count;
    int root_fd;

    if (!PyArg_ParseTuple(args, "iOO&:open_marked", &root_fd, &sequence, fsx_name_converter,
                          &xattr) ||
        (paths = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(paths);
    opened = PyMem_Calloc((size_t)count + 1, sizeof *opened);
    if (opened == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct fsx_name path;
        if (!fsx_name_converter(PyTuple_GET_ITEM(paths, i), &path)) {
            goto done;
        }
        opened[i].path = path.text;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        open_one(root_fd, xattr.text, &opened[i]);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = opened_result(&opened[i]);
        if (one == NULL) {
            Py_CLEAR(result); /* no memory: nothing will go on after that */
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    for (Py_ssize_t i = 0; opened != NULL && i < count; i++) {
        free(opened[i].mark);
    }
    PyMem_Free(opened);
    Py_DECREF(paths);
    return result;
}

PyDoc_STRVAR(
    hash_many_doc,
    "hash_many(files, /)\n--\n\n"
    "Read the beginnings of files.\n\n"
    "files: tuples (descriptor, bytes). Returns a list of (XXH3-128, CRC-64/NVME), or the\n"
    "errno of what could not be read, 0 for what is shorter.");

struct hashed {
    struct fsx_hash_range range;
    uint64_t crc;
    enum fsx_range_status status;
};

static PyObject *
hash_result(const struct hashed *one)
{
    switch (one->status) {
    case FSX_RANGE_OK:
        return Py_BuildValue("(y#K)", one->range.digest.digest,
                             (Py_ssize_t)sizeof one->range.digest.digest,
                             (unsigned long long)one->crc);
    case FSX_RANGE_SHORT:
        return PyLong_FromLong(0);
    case FSX_RANGE_ERRNO:
        return PyLong_FromLong(one->range.error);
    case FSX_RANGE_NOMEM:
        break;
    }
    return PyErr_NoMemory();
}

static PyObject *
hash_many(PyObject *Py_UNUSED(module), PyObject *argument)
{
    PyObject *files = PySequence_Tuple(argument);
    PyObject *result = NULL;
    struct hashed *hashed = NULL;
    Py_ssize_t count;

    if (files == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(files);
    hashed = PyMem_Calloc((size_t)count + 1, sizeof *hashed);
    if (hashed == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct hashed *one = &hashed[i];
        long long size;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(files, i), "iL", &one->range.fd, &size)) {
            goto done;
        }
        if (size < 0) {
            PyErr_Format(PyExc_ValueError, "a file of %lld bytes", size);
            goto done;
        }
        one->range.length = size;
        one->range.part_size = FSX_ONE_PART;
        one->range.want_xxh3 = true;
        one->range.crcs = &one->crc;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        hashed[i].status = fsx_hash_range_read(&hashed[i].range);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = hash_result(&hashed[i]);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    PyMem_Free(hashed);
    Py_DECREF(files);
    return result;
}

PyDoc_STRVAR(
    write_errors_doc,
    "write_errors(descriptors, /)\n--\n\n"
    "Of each file the error that its data met on its way to the disk since it was opened, as an\n"
    "errno, or 0. syncfs(2) tells of an error once, and perhaps somebody else.");

static PyObject *
write_errors(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *files, *result = NULL;
    Py_ssize_t count;
    int *all;

    if (!PyArg_ParseTuple(args, "O:write_errors", &sequence) ||
        (files = PySequence_Tuple(sequence)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(files);
    all = PyMem_Calloc((size_t)count + 1, sizeof *all);
    if (all == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        long fd = PyLong_AsLong(PyTuple_GET_ITEM(files, i));
        if (fd == -1 && PyErr_Occurred()) {
            goto done;
        }
        all[i] = fd < 0 || fd > INT_MAX ? -1 : (int)fd;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        int waited = sync_file_range(all[i], 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE);
        all[i] = waited < 0 ? errno : 0;
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *one = PyLong_FromLong(all[i]);
        if (one == NULL) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, one);
    }
done:
    PyMem_Free(all);
    Py_DECREF(files);
    return result;
}

static PyMethodDef methods[] = {
    {"hash_many", hash_many, METH_O, hash_many_doc},
    {"open_marked", open_marked, METH_VARARGS, open_marked_doc},
    {"write_errors", write_errors, METH_VARARGS, write_errors_doc},
    {"unmark_many", unmark_many, METH_VARARGS, unmark_many_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_hydrate_exec(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "UNMARK_DONE", FSX_SETTLED) < 0 ||
        PyModule_AddIntConstant(module, "UNMARK_OTHER", FSX_OTHER) < 0 ||
        PyModule_AddIntConstant(module, "UNMARK_FAILED", FSX_UNSETTLED) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, methods);
}
