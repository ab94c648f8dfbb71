/* inotify's records, read for tree/watch.py, and whether files are still what our own work left. */
#include "look.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define SLOTS_MIN 256U /* a power of two */
#define TRIES 8        /* slots in a row for one name; where all are taken, the last one is lost */
/* What tells of a name that something happened to what stands there, and nothing about the name. */
#define PLAIN ((uint32_t)(IN_ATTRIB | IN_CLOSE_WRITE))

/* --- no PyObject, any thread --- */

struct judged {
    const char *path;
    unsigned long long ino;
    long long size, mtime_ns, ctime_ns, mode, uid, gid;
    bool stands;
};

static bool
stands(const struct judged *one, int root_fd, dev_t device)
{
    struct stat now;
    int fd = fsx_open_beneath(root_fd, one->path, O_PATH | O_NOFOLLOW);
    bool same = fd >= 0 && fstat(fd, &now) == 0 && now.st_ino == one->ino && now.st_dev == device &&
                S_ISREG(now.st_mode) && now.st_nlink == 1 && now.st_size == one->size &&
                fsx_time_ns(&now.st_mtim) == one->mtime_ns &&
                fsx_time_ns(&now.st_ctim) == one->ctime_ns && (now.st_mode & 07777) == one->mode &&
                now.st_uid == one->uid && now.st_gid == one->gid;
    if (fd >= 0) {
        (void)close(fd);
    }
    return same;
}

/* Where the next record is; 0 if the rest is none. */
static size_t
next_record(const char *data, size_t size, size_t at, struct inotify_event *head)
{
    if (size - at < sizeof *head) {
        return 0;
    }
    memcpy(head, data + at, sizeof *head);
    if (size - at - sizeof *head < head->len) {
        return 0;
    }
    return at + sizeof *head + head->len;
}

static size_t
hash_of(int wd, const char *name, size_t length)
{
    uint64_t hash = 14695981039346656037ULL ^ (uint64_t)(uint32_t)wd;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)name[i]) * 1099511628211ULL;
    }
    return (size_t)(hash ^ hash >> 29);
}

/* --- Python --- */

PyDoc_STRVAR(
    merged_records_doc,
    "merged_records(data, /)\n--\n\n"
    "inotify's records as (wd, mask, cookie, name), in their order. Those that tell only that a "
    "file changed (IN_ATTRIB, IN_CLOSE_WRITE) become part of the one before of the same name, if "
    "no record of another kind lies between. ValueError: the data ends within a record.");

struct told {
    int wd;
    const char *name; /* NULL: nothing was told here */
    size_t length;
    Py_ssize_t place;
};

/* Of the records so far, which one the next of the same name may be merged into. */
struct merging {
    PyObject *records;
    struct told *slots;
    size_t slots_count; /* a power of two */
    Py_ssize_t since;   /* those at places before this one are no longer merged into */
};

static bool
is_of(const struct told *told, int wd, const char *name, size_t length)
{
    return told->wd == wd && told->length == length && memcmp(told->name, name, length) == 0;
}

/* Into the record at that place. */
static int
add_mask(PyObject *records, Py_ssize_t place, uint32_t mask)
{
    PyObject *record = PyList_GET_ITEM(records, place);
    unsigned long before = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(record, 1));
    PyObject *both;

    if ((before | mask) == before) {
        return 0;
    }
    both = Py_BuildValue("(OkOO)", PyTuple_GET_ITEM(record, 0), before | mask,
                         PyTuple_GET_ITEM(record, 2), PyTuple_GET_ITEM(record, 3));
    return both == NULL ? -1 : PyList_SetItem(records, place, both);
}

static int
add_record(PyObject *records, const struct inotify_event *head, const char *name, size_t length)
{
    PyObject *record = Py_BuildValue("(ikky#)", head->wd, (unsigned long)head->mask,
                                     (unsigned long)head->cookie, name, (Py_ssize_t)length);
    int result = record == NULL ? -1 : PyList_Append(records, record);
    Py_XDECREF(record);
    return result;
}

static int
merge(struct merging *merging, const struct inotify_event *head, const char *name)
{
    size_t length = head->len == 0 ? 0 : strnlen(name, head->len);
    struct told *told = NULL;

    if ((head->mask & ~PLAIN) != 0 || length == 0) {
        /* a name may stand for another file from here on */
        merging->since = PyList_GET_SIZE(merging->records) + 1;
        return add_record(merging->records, head, name, length);
    }
    for (size_t slot = hash_of(head->wd, name, length), tries = 0; tries < TRIES; tries++) {
        told = &merging->slots[slot++ & (merging->slots_count - 1)];
        if (told->name == NULL || told->place < merging->since) {
            break;
        }
        if (is_of(told, head->wd, name, length)) {
            return add_mask(merging->records, told->place, head->mask);
        }
    }
    *told = (struct told){head->wd, name, length, PyList_GET_SIZE(merging->records)};
    return add_record(merging->records, head, name, length);
}

static int
merge_all(struct merging *merging, const Py_buffer *data)
{
    struct inotify_event head;
    size_t at = 0;

    while (at < (size_t)data->len) {
        size_t next = next_record(data->buf, (size_t)data->len, at, &head);
        if (next == 0) {
            PyErr_SetString(PyExc_ValueError, "the data ends within a record");
            return -1;
        }
        if (merge(merging, &head, (const char *)data->buf + at + sizeof head) < 0) {
            return -1;
        }
        at = next;
    }
    return 0;
}

static PyObject *
merged_records(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct merging merging = {.slots_count = SLOTS_MIN};
    Py_buffer data;

    if (!PyArg_ParseTuple(args, "y*:merged_records", &data)) {
        return NULL;
    }
    while (merging.slots_count * sizeof(struct inotify_event) < (size_t)data.len) {
        merging.slots_count *= 2; /* as many as there may be records: few share one */
    }
    merging.slots = PyMem_Calloc(merging.slots_count, sizeof *merging.slots);
    merging.records = merging.slots == NULL ? PyErr_NoMemory() : PyList_New(0);
    if (merging.records != NULL && merge_all(&merging, &data) < 0) {
        Py_CLEAR(merging.records);
    }
    PyMem_Free(merging.slots);
    PyBuffer_Release(&data);
    return merging.records;
}

PyDoc_STRVAR(
    stand_doc,
    "stand(root_fd, device, files, /)\n--\n\n"
    "Whether each of files (path, inode, size, mtime_ns, ctime_ns, mode, uid, gid) stands beneath "
    "root_fd as that says: regular, with one name, through no symlink. A list of bools.");

static PyObject *
stand(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *sequence, *files, *result = NULL;
    unsigned long long device;
    struct judged *all;
    Py_ssize_t count;
    int root_fd;

    if (!PyArg_ParseTuple(args, "iKO:stand", &root_fd, &device, &sequence) ||
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
        struct judged *one = &all[i];
        struct fsx_name path;
        if (!PyTuple_Check(PyTuple_GET_ITEM(files, i))) {
            PyErr_SetString(PyExc_TypeError, "a file is a tuple");
            goto done;
        }
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(files, i), "O&KLLLLLL:stand", fsx_name_converter,
                              &path, &one->ino, &one->size, &one->mtime_ns, &one->ctime_ns,
                              &one->mode, &one->uid, &one->gid)) {
            goto done;
        }
        one->path = path.text;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        all[i].stands = stands(&all[i], root_fd, (dev_t)device);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyList_SET_ITEM(result, i, PyBool_FromLong(all[i].stands));
    }
done:
    PyMem_Free(all);
    Py_DECREF(files);
    return result;
}

static PyMethodDef methods[] = {
    {"merged_records", merged_records, METH_VARARGS, merged_records_doc},
    {"stand", stand, METH_VARARGS, stand_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_records_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
