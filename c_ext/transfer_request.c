/* The arguments of TransferPool.submit, checked, as a job. */
#include "transfer_glue.h"

#include "look.h"
#include "transfer_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_BODY ((Py_ssize_t)8 << 20) /* 10,000 parts in a CompleteMultipartUpload: 2 MiB */
#define LARGEST_KEPT (64 << 20)
#define DEFAULT_KEPT (64 << 10)
#define DEFAULT_PRIORITY 2

int
fsx_check_range(const char *name, long long value, long long least, long long most)
{
    if (value < least || value > most) {
        PyErr_Format(PyExc_ValueError, "%s: %lld is not in %lld..%lld", name, value, least, most);
        return -1;
    }
    return 0;
}

static int
add_headers(struct fsx_job *job, PyObject *headers)
{
    PyObject *sequence = PySequence_Fast(headers, "headers: a sequence of b'Name: value'");
    int result = -1;

    if (sequence == NULL) {
        return -1;
    }
    if (PySequence_Fast_GET_SIZE(sequence) > FSX_TRANSFER_MAX_HEADERS) {
        PyErr_Format(PyExc_ValueError, "more than %d headers", FSX_TRANSFER_MAX_HEADERS);
        goto done;
    }
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(sequence); i++) {
        PyObject *header = PySequence_Fast_GET_ITEM(sequence, i);
        const char *refused;
        if (!PyBytes_Check(header)) {
            PyErr_Format(PyExc_TypeError, "a header is bytes, not %.200s",
                         Py_TYPE(header)->tp_name);
            goto done;
        }
        refused = fsx_headers_refuse(PyBytes_AS_STRING(header), (size_t)PyBytes_GET_SIZE(header));
        if (refused != NULL) {
            PyErr_SetString(PyExc_ValueError, refused); /* without the header: it may be secret */
            goto done;
        }
        if (!fsx_job_add_header(job, PyBytes_AS_STRING(header))) {
            PyErr_NoMemory();
            goto done;
        }
        if (job->header_bytes > FSX_TRANSFER_MAX_HEADER_BYTES) {
            PyErr_SetString(PyExc_ValueError, "more than 64 KiB of headers");
            goto done;
        }
    }
    result = 0;
done:
    Py_DECREF(sequence);
    return result;
}

static int
set_body(struct fsx_job *job, PyObject *body)
{
    Py_buffer view;
    int result = -1;

    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    if (view.len > LARGEST_BODY) {
        PyErr_Format(PyExc_ValueError, "body: %zd bytes; above %zd give a file", view.len,
                     LARGEST_BODY);
        goto done;
    }
    job->body = malloc(view.len > 0 ? (size_t)view.len : 1);
    if (job->body == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (view.len > 0) {
        memcpy(job->body, view.buf, (size_t)view.len);
    }
    job->length = view.len;
    result = 0;
done:
    PyBuffer_Release(&view);
    return result;
}

static int
set_expected_crc(struct fsx_job *job, PyObject *crc)
{
    PyObject *number;

    if (crc == Py_None) {
        return 0;
    }
    number = PyNumber_Index(crc);
    if (number == NULL) {
        return -1;
    }
    job->expected_crc = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (PyErr_Occurred()) { /* OverflowError outside 0..2**64-1 */
        return -1;
    }
    job->expects_crc = true;
    job->hashes |= FSX_TRANSFER_CRC64NVME;
    return 0;
}

/* Our own descriptor: the caller may close his, and use its number for something else. */
static int
set_file(struct fsx_job *job, int source, int sink, long long offset, long long length)
{
    job->is_sink = sink >= 0;
    job->offset = offset;
    job->length = length;
    job->fd = fcntl(job->is_sink ? sink : source, F_DUPFD_CLOEXEC, 3);
    if (job->fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

struct fsx_job *
fsx_request_parse(PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"method",
                            "url",
                            "headers",
                            "source",
                            "sink",
                            "offset",
                            "length",
                            "body",
                            "object_offset",
                            "expect_status",
                            "hashes",
                            "priority",
                            "keep_body",
                            "timeout_ms",
                            "low_speed_s",
                            "proxy",
                            "expect_crc64nvme",
                            NULL};
    const char *method, *url, *proxy = NULL;
    PyObject *headers, *body = Py_None, *expected_crc = Py_None;
    int source = -1, sink = -1;
    long long offset = 0, length = 0, object_offset = -1, expect_status = -1, hashes = 0;
    long long priority = DEFAULT_PRIORITY, keep_body = DEFAULT_KEPT;
    long long timeout_ms = 0, low_speed_s = -1;
    struct fsx_job *job = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ssO|$iiLLOLLLLLLLzO:submit", names, &method,
                                     &url, &headers, &source, &sink, &offset, &length, &body,
                                     &object_offset, &expect_status, &hashes, &priority, &keep_body,
                                     &timeout_ms, &low_speed_s, &proxy, &expected_crc)) {
        return NULL;
    }
    if (fsx_check_range("offset", offset, 0, INT64_MAX) < 0 ||
        fsx_check_range("length", length, 0, INT64_MAX - offset) < 0 ||
        fsx_check_range("object_offset", object_offset, -1, INT64_MAX - length) < 0 ||
        fsx_check_range("expect_status", expect_status, -1, 599) < 0 ||
        fsx_check_range("hashes", hashes, 0, FSX_TRANSFER_XXH3 | FSX_TRANSFER_CRC64NVME) < 0 ||
        fsx_check_range("priority", priority, 0, FSX_TRANSFER_PRIORITIES - 1) < 0 ||
        fsx_check_range("keep_body", keep_body, 0, LARGEST_KEPT) < 0 ||
        fsx_check_range("timeout_ms", timeout_ms, 0, INT_MAX) < 0 ||
        fsx_check_range("low_speed_s", low_speed_s, -1, FSX_LONGEST_S) < 0) {
        return NULL;
    }
    if (!fsx_headers_is_method(method)) {
        PyErr_Format(PyExc_ValueError, "no method: %.20s", method);
        return NULL;
    }
    if ((source >= 0) + (sink >= 0) + (body != Py_None) > 1) {
        PyErr_SetString(PyExc_ValueError, "more than one of source, sink and body");
        return NULL;
    }
    if (source < 0 && sink < 0 &&
        (length > 0 || offset > 0 || hashes != 0 || expected_crc != Py_None)) {
        PyErr_SetString(PyExc_ValueError, "a range, hashes or a CRC, but no source or sink");
        return NULL;
    }
    if (object_offset >= 0 && (sink < 0 || length == 0)) {
        PyErr_SetString(PyExc_ValueError, "object_offset wants a sink and a length");
        return NULL;
    }
    if (object_offset >= 0 && expect_status != -1 && expect_status != 206) {
        PyErr_SetString(PyExc_ValueError, "object_offset wants a 206");
        return NULL;
    }
    if (sink >= 0 && strcmp(method, "HEAD") == 0) {
        PyErr_SetString(PyExc_ValueError, "the answer to a HEAD has no body for a sink");
        return NULL;
    }
    job = fsx_job_new(method, url, proxy);
    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job->object_offset = object_offset;
    job->expect_status = expect_status >= 0   ? (long)expect_status
                         : object_offset >= 0 ? 206
                         : sink >= 0          ? 200
                                              : 0;
    job->hashes = (unsigned)hashes;
    job->priority = (unsigned)priority;
    job->keep_body = (size_t)keep_body;
    job->timeout_ms = timeout_ms;
    job->low_speed_s = low_speed_s;
    if (add_headers(job, headers) < 0 || set_expected_crc(job, expected_crc) < 0 ||
        (body != Py_None && set_body(job, body) < 0) ||
        ((source >= 0 || sink >= 0) && set_file(job, source, sink, offset, length) < 0)) {
        fsx_job_free(job);
        return NULL;
    }
    return job;
}

static struct fsx_job *
parse_get(PyObject *get, long long priority, const char *proxy)
{
    long long length, mtime_ns, atime_ns;
    PyObject *headers;
    const char *url;
    int sink;
    struct fsx_job *job;

    if (!PyTuple_Check(get)) {
        PyErr_SetString(PyExc_TypeError, "a GET is a tuple");
        return NULL;
    }
    if (!PyArg_ParseTuple(get, "sOiLLL", &url, &headers, &sink, &length, &mtime_ns, &atime_ns) ||
        fsx_check_range("length", length, 0, INT64_MAX) < 0 ||
        fsx_check_range("priority", priority, 0, FSX_TRANSFER_PRIORITIES - 1) < 0) {
        return NULL;
    }
    job = fsx_job_new("GET", url, proxy);
    if (job == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    job->expect_status = 200;
    job->hashes = FSX_TRANSFER_CRC64NVME;
    job->priority = (unsigned)priority;
    job->keep_body = DEFAULT_KEPT;
    job->drops_metadata = true;
    job->gives_times = true;
    job->times[0] = fsx_timespec(atime_ns);
    job->times[1] = fsx_timespec(mtime_ns);
    if (add_headers(job, headers) < 0 || set_file(job, -1, sink, 0, length) < 0) {
        fsx_job_free(job);
        return NULL;
    }
    return job;
}

struct fsx_job **
fsx_request_parse_gets(PyObject *gets, long long priority, const char *proxy)
{
    Py_ssize_t count = PyTuple_GET_SIZE(gets);
    struct fsx_job **jobs = PyMem_Calloc((size_t)count + 1, sizeof(*jobs));

    if (jobs == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        jobs[i] = parse_get(PyTuple_GET_ITEM(gets, i), priority, proxy);
        if (jobs[i] == NULL) {
            fsx_request_free_gets(jobs, count);
            return NULL;
        }
    }
    return jobs;
}

void
fsx_request_free_gets(struct fsx_job **jobs, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        fsx_job_free(jobs[i]);
    }
    PyMem_Free(jobs);
}
