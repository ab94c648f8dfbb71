/* Reading a directory from an offset on: a listing is resumed where its reader left it. */
#include "module.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_BYTES (16 * 1024 * 1024)

/* The kernel's struct linux_dirent64, which no header exports. */
struct record {
    uint64_t inode;
    int64_t next_offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

static int
is_dot_or_dotdot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Add the records of one read to `entries`. 0 or -1. */
static int
append_records(PyObject *entries, const char *buffer, size_t size)
{
    size_t position = 0;
    while (position < size) {
        const struct record *record = (const struct record *)(const void *)(buffer + position);
        position += record->length;
        if (is_dot_or_dotdot(record->name)) {
            continue;
        }
        PyObject *entry = Py_BuildValue("(yKiL)", record->name, (unsigned long long)record->inode,
                                        (int)record->type, (long long)record->next_offset);
        if (entry == NULL) {
            return -1;
        }
        int failed = PyList_Append(entries, entry);
        Py_DECREF(entry);
        if (failed) {
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(
    getdents_doc,
    "getdents(fd, offset, max_bytes, /)\n--\n\n"
    "[(name, inode, d_type, next_offset), ...] from offset on, '.' and '..' left out.\n\n"
    "Empty at the end of the directory only. Offsets are 0 or a next_offset, and nothing else.\n"
    "Moves fd's position: an fd is for one reader at a time.");

static PyObject *
getdents(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd, max_bytes, error = 0;
    long long offset;
    long got;
    char *buffer = NULL;
    PyObject *entries = NULL;

    if (!PyArg_ParseTuple(args, "iLi:getdents", &fd, &offset, &max_bytes)) {
        return NULL;
    }
    if (offset < 0) {
        return PyErr_Format(PyExc_ValueError, "offset is negative: %lld", offset);
    }
    if (max_bytes <= 0 || max_bytes > MOST_BYTES) {
        return PyErr_Format(PyExc_ValueError, "max_bytes is not in 1..%d: %d", MOST_BYTES,
                            max_bytes);
    }
    buffer = PyMem_Malloc((size_t)max_bytes);
    if (buffer == NULL) {
        return PyErr_NoMemory();
    }
    entries = PyList_New(0);
    if (entries == NULL) {
        goto fail;
    }
    Py_BEGIN_ALLOW_THREADS
    got = lseek(fd, (off_t)offset, SEEK_SET) < 0 ? -1 : 0;
    error = errno;
    Py_END_ALLOW_THREADS
    if (got < 0) {
        goto fail_errno;
    }
    do { /* a read may hold '.' and '..' alone */
        Py_BEGIN_ALLOW_THREADS
        got = syscall(SYS_getdents64, fd, buffer, (size_t)max_bytes);
        error = errno;
        Py_END_ALLOW_THREADS
        if (got < 0) {
            if (error == EINTR && PyErr_CheckSignals() == 0) {
                continue;
            }
            goto fail_errno;
        }
        if (append_records(entries, buffer, (size_t)got) < 0) {
            goto fail;
        }
    } while (got != 0 && PyList_GET_SIZE(entries) == 0);
    PyMem_Free(buffer);
    return entries;

fail_errno:
    if (!PyErr_Occurred()) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
fail:
    Py_XDECREF(entries);
    PyMem_Free(buffer);
    return NULL;
}

static PyMethodDef methods[] = {
    {"getdents", getdents, METH_VARARGS, getdents_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_getdents_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
