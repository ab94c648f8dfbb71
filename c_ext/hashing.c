/* XXH3-128 and CRC-64/NVME over buffers and over ranges of files. */
#include "module.h"

#include "crc64nvme.h"
#include "hash_range.h"

#include <errno.h>
#include <stdlib.h>

/* Below this, hashing takes less time than a switch of threads. */
#define WORTH_RELEASING ((Py_ssize_t)32 * 1024)

/* 0, or -1 with ValueError. */
static int
set_range(struct fsx_hash_range *range, long long offset, long long length)
{
    if (offset < 0 || length < 0 || length > INT64_MAX - offset) {
        PyErr_Format(PyExc_ValueError, "no such range: offset %lld, length %lld", offset, length);
        return -1;
    }
    range->offset = offset;
    range->length = length;
    return 0;
}

/* Hash, and set an exception on failure. 0 or -1. */
static int
run_range(struct fsx_hash_range *range)
{
    enum fsx_range_status status;

    Py_BEGIN_ALLOW_THREADS
    status = fsx_hash_range_read(range);
    Py_END_ALLOW_THREADS
    switch (status) {
    case FSX_RANGE_OK:
        return 0;
    case FSX_RANGE_SHORT:
        PyErr_Format(PyExc_EOFError, "fd %d ends at %lld, inside the range of %lld bytes from %lld",
                     range->fd, (long long)(range->offset + range->done), (long long)range->length,
                     (long long)range->offset);
        return -1;
    case FSX_RANGE_ERRNO:
        errno = range->error; /* taking the GIL back may have changed errno */
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    case FSX_RANGE_NOMEM:
        break;
    }
    PyErr_NoMemory();
    return -1;
}

/* Parse (fd, offset, length), and run. 0, or -1 with an exception. */
static int
parse_and_run_range(PyObject *args, const char *format, struct fsx_hash_range *range)
{
    long long offset, length;

    range->part_size = FSX_ONE_PART;
    /* "L" checks for overflow; "K" would turn -1 into 2**64 - 1 without a word. */
    if (!PyArg_ParseTuple(args, format, &range->fd, &offset, &length) ||
        set_range(range, offset, length) < 0) {
        return -1;
    }
    return run_range(range);
}

static PyObject *
digest_bytes(const XXH128_canonical_t *digest)
{
    return PyBytes_FromStringAndSize((const char *)digest->digest, sizeof digest->digest);
}

static int
uint64_converter(PyObject *argument, void *address)
{
    PyObject *number = PyNumber_Index(argument);
    if (number == NULL) {
        return 0;
    }
    /* OverflowError outside 0..2**64-1 */
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        return 0;
    }
    *(uint64_t *)address = value;
    return 1;
}

PyDoc_STRVAR(xxh3_128_doc, "xxh3_128(data, /)\n--\n\n"
                           "XXH3-128 of a buffer, 16 bytes, big-endian (canonical).");

static PyObject *
xxh3_128(PyObject *Py_UNUSED(module), PyObject *data)
{
    Py_buffer view;
    XXH128_canonical_t digest;

    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (view.len < WORTH_RELEASING) {
        XXH128_canonicalFromHash(&digest, XXH3_128bits(view.buf, (size_t)view.len));
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        XXH128_canonicalFromHash(&digest, XXH3_128bits(view.buf, (size_t)view.len));
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    return digest_bytes(&digest);
}

PyDoc_STRVAR(
    xxh3_128_range_doc,
    "xxh3_128_range(fd, offset, length, /)\n--\n\n"
    "XXH3-128 of a range of a file, 16 bytes. EOFError if the file ends before the range does.");

static PyObject *
xxh3_128_range(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_hash_range range = {.want_xxh3 = true};
    if (parse_and_run_range(args, "iLL:xxh3_128_range", &range) < 0) {
        return NULL;
    }
    return digest_bytes(&range.digest);
}

typedef uint64_t (*crc_update)(uint64_t crc, const void *data, size_t length);

static PyObject *
crc_of_buffer(PyObject *args, const char *format, crc_update update)
{
    Py_buffer view;
    uint64_t crc = 0;

    if (!PyArg_ParseTuple(args, format, &view, uint64_converter, &crc)) {
        return NULL;
    }
    if (view.len < WORTH_RELEASING) {
        crc = update(crc, view.buf, (size_t)view.len);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        crc = update(crc, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&view);
    return PyLong_FromUnsignedLongLong(crc);
}

PyDoc_STRVAR(crc64nvme_doc, "crc64nvme(data, crc=0, /)\n--\n\n"
                            "CRC-64/NVME of a buffer, continuing from crc.");

static PyObject *
crc64nvme(PyObject *Py_UNUSED(module), PyObject *args)
{
    return crc_of_buffer(args, "y*|O&:crc64nvme", fsx_crc64nvme_update);
}

PyDoc_STRVAR(crc64nvme_portable_doc,
             "_crc64nvme_portable(data, crc=0, /)\n--\n\n"
             "crc64nvme by tables, as on processors without PCLMULQDQ. For tests.");

static PyObject *
crc64nvme_portable(PyObject *Py_UNUSED(module), PyObject *args)
{
    return crc_of_buffer(args, "y*|O&:_crc64nvme_portable", fsx_crc64nvme_update_portable);
}

PyDoc_STRVAR(crc64nvme_range_doc,
             "crc64nvme_range(fd, offset, length, /)\n--\n\n"
             "CRC-64/NVME of a range of a file. EOFError if the file ends before the range does.");

static PyObject *
crc64nvme_range(PyObject *Py_UNUSED(module), PyObject *args)
{
    uint64_t crc = 0;
    struct fsx_hash_range range = {.crcs = &crc};
    if (parse_and_run_range(args, "iLL:crc64nvme_range", &range) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(crc);
}

PyDoc_STRVAR(
    crc64nvme_combine_doc,
    "crc64nvme_combine(crc1, crc2, length2, /)\n--\n\n"
    "CRC-64/NVME of two pieces in a row, from the CRC of each and the second one's length.");

static PyObject *
crc64nvme_combine(PyObject *Py_UNUSED(module), PyObject *args)
{
    uint64_t crc1, crc2;
    long long length2;

    if (!PyArg_ParseTuple(args, "O&O&L:crc64nvme_combine", uint64_converter, &crc1,
                          uint64_converter, &crc2, &length2)) {
        return NULL;
    }
    if (length2 < 0) {
        return PyErr_Format(PyExc_ValueError, "length2 is negative: %lld", length2);
    }
    return PyLong_FromUnsignedLongLong(fsx_crc64nvme_combine(crc1, crc2, (uint64_t)length2));
}

PyDoc_STRVAR(hash_range_doc, "hash_range(fd, offset, length, /)\n--\n\n"
                             "(XXH3-128, CRC-64/NVME) of a range of a file, read once.\n\n"
                             "EOFError if the file ends before the range does.");

static PyObject *
hash_range_both(PyObject *Py_UNUSED(module), PyObject *args)
{
    uint64_t crc = 0;
    struct fsx_hash_range range = {.want_xxh3 = true, .crcs = &crc};
    if (parse_and_run_range(args, "iLL:hash_range", &range) < 0) {
        return NULL;
    }
    return Py_BuildValue("(NK)", digest_bytes(&range.digest), (unsigned long long)crc);
}

PyDoc_STRVAR(hash_parts_doc,
             "hash_parts(fd, offset, length, part_size, /)\n--\n\n"
             "(XXH3-128 of a range of a file, CRC-64/NVME of each of its parts), read once.\n\n"
             "All parts have part_size bytes, but the last may have fewer. A range of no bytes has "
             "no\n"
             "parts. EOFError if the file ends before the range does.");

static PyObject *
list_of(const uint64_t *numbers, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);

    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(numbers[i]);
        if (number == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, number);
    }
    return list;
}

static PyObject *
hash_parts(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_hash_range range = {.want_xxh3 = true};
    long long offset, length, part_size;
    PyObject *list = NULL, *digest = NULL, *result = NULL;
    uint64_t count;

    if (!PyArg_ParseTuple(args, "iLLL:hash_parts", &range.fd, &offset, &length, &part_size) ||
        set_range(&range, offset, length) < 0) {
        return NULL;
    }
    if (part_size < 1) {
        return PyErr_Format(PyExc_ValueError, "part_size: %lld bytes", part_size);
    }
    range.part_size = part_size;
    count = (uint64_t)(length / part_size + (length % part_size != 0));
    if (count > (uint64_t)PY_SSIZE_T_MAX / sizeof(*range.crcs)) {
        return PyErr_NoMemory();
    }
    range.crcs = calloc(count > 0 ? (size_t)count : 1, sizeof(*range.crcs));
    if (range.crcs == NULL) {
        return PyErr_NoMemory();
    }
    if (run_range(&range) == 0) {
        digest = digest_bytes(&range.digest);
        list = list_of(range.crcs, (size_t)count);
    }
    if (digest != NULL && list != NULL) {
        result = PyTuple_Pack(2, digest, list);
    }
    Py_XDECREF(digest);
    Py_XDECREF(list);
    free(range.crcs);
    return result;
}

static PyMethodDef methods[] = {
    {"xxh3_128", xxh3_128, METH_O, xxh3_128_doc},
    {"xxh3_128_range", xxh3_128_range, METH_VARARGS, xxh3_128_range_doc},
    {"crc64nvme", crc64nvme, METH_VARARGS, crc64nvme_doc},
    {"_crc64nvme_portable", crc64nvme_portable, METH_VARARGS, crc64nvme_portable_doc},
    {"crc64nvme_range", crc64nvme_range, METH_VARARGS, crc64nvme_range_doc},
    {"crc64nvme_combine", crc64nvme_combine, METH_VARARGS, crc64nvme_combine_doc},
    {"hash_range", hash_range_both, METH_VARARGS, hash_range_doc},
    {"hash_parts", hash_parts, METH_VARARGS, hash_parts_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_hashing_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
