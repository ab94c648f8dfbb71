/* XXH3-128 and CRC-64/NVME over buffers and over ranges of files. */
#include "module.h"

#include "crc64nvme.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#define DIGEST sizeof(XXH128_canonical_t)
#define READ_SIZE ((size_t)256 * 1024) /* stays in L2 while two hashes go over it */
/* Below this, hashing takes less time than a switch of threads. */
#define WORTH_RELEASING ((Py_ssize_t)32 * 1024)

/* --- ranges: no PyObject, any thread --- */

enum range_status { RANGE_OK, RANGE_SHORT, RANGE_ERRNO, RANGE_NOMEM };

struct range {
    int fd;
    int64_t offset;
    int64_t length;
    bool want_xxh3;
    bool want_crc;
    XXH128_canonical_t digest; /* out, if wanted */
    uint64_t crc;              /* out, if wanted */
    int64_t done;              /* out: bytes read, also on failure */
    int error;                 /* out: errno for RANGE_ERRNO */
};

static enum range_status
hash_range(struct range *range)
{
    enum range_status status = RANGE_NOMEM;
    XXH3_state_t *state = NULL;
    unsigned char *buffer = malloc(READ_SIZE);

    range->crc = 0;
    range->done = 0;
    if (buffer == NULL) {
        goto done;
    }
    if (range->want_xxh3) {
        state = XXH3_createState();
        if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
            goto done;
        }
    }
    while (range->done < range->length) {
        int64_t left = range->length - range->done;
        size_t want = left < (int64_t)READ_SIZE ? (size_t)left : READ_SIZE;
        ssize_t got = pread(range->fd, buffer, want, (off_t)(range->offset + range->done));
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            range->error = errno;
            status = RANGE_ERRNO;
            goto done;
        }
        if (got == 0) { /* the file was cut under us: an error, never the hash of less */
            status = RANGE_SHORT;
            goto done;
        }
        if (state != NULL && XXH3_128bits_update(state, buffer, (size_t)got) != XXH_OK) {
            goto done;
        }
        if (range->want_crc) {
            range->crc = fsx_crc64nvme_update(range->crc, buffer, (size_t)got);
        }
        range->done += got;
    }
    if (state != NULL) {
        XXH128_canonicalFromHash(&range->digest, XXH3_128bits_digest(state));
    }
    status = RANGE_OK;
done:
    XXH3_freeState(state);
    free(buffer);
    return status;
}

/* --- glue --- */

/* Parse (fd, offset, length), hash, and set an exception on failure. 0 or -1. */
static int
run_range(PyObject *args, const char *format, struct range *range)
{
    long long offset, length;
    enum range_status status;

    /* "L" checks for overflow; "K" would turn -1 into 2**64 - 1 without a word. */
    if (!PyArg_ParseTuple(args, format, &range->fd, &offset, &length)) {
        return -1;
    }
    if (offset < 0 || length < 0 || length > INT64_MAX - offset) {
        PyErr_Format(PyExc_ValueError, "no such range: offset %lld, length %lld", offset, length);
        return -1;
    }
    range->offset = offset;
    range->length = length;
    Py_BEGIN_ALLOW_THREADS
    status = hash_range(range);
    Py_END_ALLOW_THREADS
    switch (status) {
    case RANGE_OK:
        return 0;
    case RANGE_SHORT:
        PyErr_Format(PyExc_EOFError, "fd %d ends at %lld, inside the range of %lld bytes from %lld",
                     range->fd, (long long)(range->offset + range->done), length, offset);
        return -1;
    case RANGE_ERRNO:
        errno = range->error; /* taking the GIL back may have changed errno */
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    case RANGE_NOMEM:
        break;
    }
    PyErr_NoMemory();
    return -1;
}

static PyObject *
digest_bytes(const XXH128_canonical_t *digest)
{
    return PyBytes_FromStringAndSize((const char *)digest->digest, DIGEST);
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
    struct range range = {.want_xxh3 = true};
    if (run_range(args, "iLL:xxh3_128_range", &range) < 0) {
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
    struct range range = {.want_crc = true};
    if (run_range(args, "iLL:crc64nvme_range", &range) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(range.crc);
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
    struct range range = {.want_xxh3 = true, .want_crc = true};
    if (run_range(args, "iLL:hash_range", &range) < 0) {
        return NULL;
    }
    return Py_BuildValue("(NK)", digest_bytes(&range.digest), (unsigned long long)range.crc);
}

static PyMethodDef methods[] = {
    {"xxh3_128", xxh3_128, METH_O, xxh3_128_doc},
    {"xxh3_128_range", xxh3_128_range, METH_VARARGS, xxh3_128_range_doc},
    {"crc64nvme", crc64nvme, METH_VARARGS, crc64nvme_doc},
    {"_crc64nvme_portable", crc64nvme_portable, METH_VARARGS, crc64nvme_portable_doc},
    {"crc64nvme_range", crc64nvme_range, METH_VARARGS, crc64nvme_range_doc},
    {"crc64nvme_combine", crc64nvme_combine, METH_VARARGS, crc64nvme_combine_doc},
    {"hash_range", hash_range_both, METH_VARARGS, hash_range_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_hashing_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
