/* fsxsync._core.TransferPool: the thin part. What a pool does is in transfer_pool.c and below. */
#include "transfer_glue.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_THREADS 1024
#define MOST_JOBS (1 << 20)
#define SMALLEST_BUFFER 4096
#define LARGEST_BUFFER (16 << 20)

struct pool_object {
    PyObject_HEAD struct fsx_pool *pool;
    pid_t owner; /* threads do not survive a fork */
    PyObject *result_type;
};

/* 0, or -1 with RuntimeError. */
static int
check_usable(const struct pool_object *self)
{
    if (self->owner != getpid()) {
        PyErr_SetString(PyExc_RuntimeError, "the pool's threads stayed in the parent of this fork");
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(pool_doc,
             "TransferPool(threads, *, queue=1024, buffer_bytes=262144, ca_bundle=None,\n"
             "             connect_timeout_ms=5000, low_speed_bytes=1, low_speed_s=60,\n"
             "             down_limit=0, up_limit=0)\n--\n\n"
             "Native threads that carry out signed HTTP requests, one at a time each.\n\n"
             "queue: the most jobs held, from submit to collect. buffer_bytes: a thread has three "
             "of these.\n"
             "low_speed_bytes a second, over low_speed_s, is the least that a connection must "
             "move; 0 s: no\n"
             "limit. down_limit, up_limit: bytes a second of all threads together, 0: none.\n"
             "Make it after the last fork; close it before the process ends.");

static PyObject *
pool_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "threads",         "queue",       "buffer_bytes", "ca_bundle", "connect_timeout_ms",
        "low_speed_bytes", "low_speed_s", "down_limit",   "up_limit",  NULL};
    long long threads, queue = 1024, buffer_bytes = 256 << 10, connect_timeout_ms = 5000;
    long long low_speed_bytes = 1, low_speed_s = 60, down_limit = 0, up_limit = 0;
    PyObject *ca_bundle = Py_None, *ca_bundle_path = NULL;
    struct fsx_transfer_settings settings = {0};
    struct pool_object *self = NULL;
    PyObject *result_type = NULL;
    PyObject *module = PyType_GetModule(type);

    if (module == NULL ||
        !PyArg_ParseTupleAndKeywords(args, kwargs, "L|$LLOLLLLL:TransferPool", names, &threads,
                                     &queue, &buffer_bytes, &ca_bundle, &connect_timeout_ms,
                                     &low_speed_bytes, &low_speed_s, &down_limit, &up_limit)) {
        return NULL;
    }
    if (fsx_check_range("threads", threads, 1, MOST_THREADS) < 0 ||
        fsx_check_range("queue", queue, 1, MOST_JOBS) < 0 ||
        fsx_check_range("buffer_bytes", buffer_bytes, SMALLEST_BUFFER, LARGEST_BUFFER) < 0 ||
        fsx_check_range("connect_timeout_ms", connect_timeout_ms, 1, INT_MAX) < 0 ||
        fsx_check_range("low_speed_bytes", low_speed_bytes, 0, INT_MAX) < 0 ||
        fsx_check_range("low_speed_s", low_speed_s, 0, FSX_LONGEST_S) < 0 ||
        fsx_check_range("down_limit", down_limit, 0, INT64_MAX) < 0 ||
        fsx_check_range("up_limit", up_limit, 0, INT64_MAX) < 0) {
        return NULL;
    }
    /* Here and not at import: a process that never transfers pays nothing. Thread-safe since 7.84.
     */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return PyErr_NoMemory();
    }
    result_type = PyObject_GetAttrString(module, "TransferResult");
    if (result_type == NULL) {
        return NULL;
    }
    self = (struct pool_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        Py_DECREF(result_type);
        return NULL;
    }
    self->result_type = result_type;
    self->owner = getpid();
    settings.connect_timeout_ms = (long)connect_timeout_ms;
    settings.low_speed_bytes = low_speed_bytes;
    settings.low_speed_s = low_speed_s;
    settings.buffer_bytes = (size_t)buffer_bytes;
    if (ca_bundle != Py_None) {
        if (!PyUnicode_FSConverter(ca_bundle, &ca_bundle_path)) {
            Py_DECREF(self);
            return NULL;
        }
        settings.ca_bundle = strdup(PyBytes_AS_STRING(ca_bundle_path));
        Py_DECREF(ca_bundle_path);
        if (settings.ca_bundle == NULL) {
            Py_DECREF(self);
            return PyErr_NoMemory();
        }
    }
    self->pool = fsx_pool_new((size_t)threads, (size_t)queue, &settings, down_limit, up_limit);
    if (self->pool == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
pool_dealloc(PyObject *object)
{
    struct pool_object *self = (struct pool_object *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->owner == getpid()) { /* in a child there is nobody to join: its copy is left alone */
        Py_BEGIN_ALLOW_THREADS
        fsx_pool_free(self->pool);
        Py_END_ALLOW_THREADS
    }
    Py_XDECREF(self->result_type);
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    submit_doc,
    "submit($self, method, url, headers, *, source=-1, sink=-1, offset=0, length=0, body=None,\n"
    "       object_offset=-1, expect_status=-1, hashes=0, priority=2, keep_body=65536,\n"
    "       timeout_ms=0, low_speed_s=-1, proxy=None, expect_crc64nvme=None)\n--\n\n"
    "Queue a request; its id. The result comes through collect(), whatever happens.\n\n"
    "source, sink: a descriptor whose range (offset, length) is the request's body, or takes the\n"
    "answer's; it is duplicated. body: a small request body instead. object_offset: the answer "
    "must\n"
    "be a 206 with length bytes from there (the Range header is the caller's, who may have signed\n"
    "it). expect_status: by default 206 with object_offset, 200 with a sink, else any 2xx (0).\n"
    "hashes: TRANSFER_HASH_ constants. priority: 0 comes first, 3 last. keep_body: the most bytes\n"
    "of an answer's body to keep in memory, error texts too. timeout_ms: of the whole request, 0:\n"
    "none. low_speed_s: instead of the pool's. proxy: its URL; the environment is not looked at.\n"
    "expect_crc64nvme: of the range; computed in any case then. A source that has another one is\n"
    "never sent to its end (TRANSFER_LOCAL_CHANGED): the server has no whole body to publish. An\n"
    "answer that has another one is TRANSFER_DAMAGED: its bytes are in the sink.\n"
    "BlockingIOError if the pool holds as many jobs as it may; ValueError if it is closed.");

static PyObject *
pool_submit(PyObject *object, PyObject *args, PyObject *kwargs)
{
    struct pool_object *self = (struct pool_object *)object;
    struct fsx_job *job;
    uint64_t id = 0;

    if (check_usable(self) < 0 || (job = fsx_request_parse(args, kwargs)) == NULL) {
        return NULL;
    }
    switch (fsx_pool_submit(self->pool, job, &id)) {
    case FSX_POOL_OK:
        return PyLong_FromUnsignedLongLong(id);
    case FSX_POOL_FULL:
        errno = EAGAIN; /* BlockingIOError */
        PyErr_SetFromErrno(PyExc_OSError);
        break;
    case FSX_POOL_CLOSED:
        PyErr_SetString(PyExc_ValueError, "the pool is closed");
        break;
    }
    fsx_job_free(job);
    return NULL;
}

PyDoc_STRVAR(
    submit_gets_doc,
    "submit_gets($self, gets, lane, at_once, /, *, priority=2, proxy=None)\n--\n\n"
    "Queue GETs of whole objects at once; the ids of those that there was room for.\n\n"
    "gets: tuples (url, headers, sink, length, mtime_ns, atime_ns). The answer must be a 200\n"
    "of that many bytes; their CRC-64/NVME is in the result. The file gets the times back\n"
    "that are given, whatever came of it. x-amz-meta- headers are left out of the result.\n"
    "at_once: so many of those with that lane's number are under way at a time, these and those\n"
    "before them; without gets, only that is said. The rest is as in submit.");

static PyObject *
pool_submit_gets(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "", "", "priority", "proxy", NULL};
    struct pool_object *self = (struct pool_object *)object;
    struct fsx_job **jobs;
    uint64_t *numbers;
    PyObject *gets, *ids = NULL;
    const char *proxy = NULL;
    long long lane, at_once, priority = 2;
    Py_ssize_t count;
    size_t taken;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!LL|$Lz:submit_gets", names, &PyTuple_Type,
                                     &gets, &lane, &at_once, &priority, &proxy) ||
        fsx_check_range("at_once", at_once, 0, MOST_JOBS) < 0 || check_usable(self) < 0 ||
        (jobs = fsx_request_parse_gets(gets, priority, proxy)) == NULL) {
        return NULL;
    }
    count = PyTuple_GET_SIZE(gets);
    numbers = PyMem_Calloc((size_t)count + 1, sizeof *numbers);
    if (numbers == NULL) {
        PyErr_NoMemory();
    }
    else {
        taken = fsx_pool_submit_many(self->pool, jobs, (size_t)count, numbers, (uint64_t)lane,
                                     (size_t)at_once);
        ids = fsx_result_ids(numbers, taken);
    }
    fsx_request_free_gets(jobs, count); /* NULL where the pool took it */
    PyMem_Free(numbers);
    return ids;
}

PyDoc_STRVAR(cancel_doc,
             "cancel($self, job, /, *, only_held=False)\n--\n\n"
             "End a job at once, whatever it waits for. False if it is done already; only_held:\n"
             "or if its lane has let it in. Its result comes through collect():\n"
             "TRANSFER_CANCELLED, unless it was faster.");

static PyObject *
pool_cancel(PyObject *object, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "only_held", NULL};
    struct pool_object *self = (struct pool_object *)object;
    unsigned long long id;
    int only_held = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|$p:cancel", names, &id, &only_held) ||
        check_usable(self) < 0) {
        return NULL;
    }
    return PyBool_FromLong(fsx_pool_cancel(self->pool, id, only_held != 0));
}

PyDoc_STRVAR(collect_doc, "collect($self, /)\n--\n\n"
                          "The results of all jobs that are done, oldest first. Does not wait.");

static PyObject *
pool_collect(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct pool_object *self = (struct pool_object *)object;
    PyObject *results;
    struct fsx_job *job;

    if (check_usable(self) < 0 || (results = PyList_New(0)) == NULL) {
        return NULL;
    }
    job = fsx_pool_collect(self->pool);
    while (job != NULL) {
        struct fsx_job *next = job->next;
        PyObject *result = fsx_result_of(self->result_type, job);
        int failed = result == NULL ? -1 : PyList_Append(results, result);
        Py_XDECREF(result);
        if (failed < 0) { /* no memory: the rest can be had later, this list's jobs cannot */
            fsx_pool_return(self->pool, job);
            if (PyList_GET_SIZE(results) == 0) {
                Py_DECREF(results);
                return NULL;
            }
            PyErr_Clear();
            return results;
        }
        fsx_pool_forget(self->pool, job);
        job = next;
    }
    return results;
}

PyDoc_STRVAR(fileno_doc,
             "fileno($self, /)\n--\n\n"
             "An eventfd, readable while there is something to collect. Don't read it.");

static PyObject *
pool_fileno(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct pool_object *self = (struct pool_object *)object;

    if (check_usable(self) < 0) {
        return NULL;
    }
    return PyLong_FromLong(fsx_pool_event_fd(self->pool));
}

PyDoc_STRVAR(set_limits_doc, "set_limits($self, down, up, /)\n--\n\n"
                             "New bandwidth limits, bytes a second, 0: none. They hold at once.");

static PyObject *
pool_set_limits(PyObject *object, PyObject *args)
{
    struct pool_object *self = (struct pool_object *)object;
    long long down, up;

    if (!PyArg_ParseTuple(args, "LL:set_limits", &down, &up) || check_usable(self) < 0 ||
        fsx_check_range("down", down, 0, INT64_MAX) < 0 ||
        fsx_check_range("up", up, 0, INT64_MAX) < 0) {
        return NULL;
    }
    fsx_pool_set_limits(self->pool, down, up);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Now: waiting, running, done (not collected). Since the start: jobs,\n"
                        "bytes_down, bytes_up (of bodies), connections, throttled_ns.");

static PyObject *
pool_stats(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct pool_object *self = (struct pool_object *)object;
    struct fsx_pool_stats stats;

    if (check_usable(self) < 0) {
        return NULL;
    }
    stats = fsx_pool_stats(self->pool);
    return Py_BuildValue(
        "{s:n,s:n,s:n,s:L,s:L,s:L,s:L,s:L}", "waiting", (Py_ssize_t)stats.waiting, "running",
        (Py_ssize_t)stats.running, "done", (Py_ssize_t)stats.done, "jobs", (long long)stats.jobs,
        "bytes_down", (long long)stats.bytes_down, "bytes_up", (long long)stats.bytes_up,
        "connections", (long long)stats.connections, "throttled_ns", (long long)stats.throttled_ns);
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "Cancel all jobs and end the threads. Results can still be collected, and\n"
                        "fileno() stays open as long as the object. Twice is harmless.");

static PyObject *
pool_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct pool_object *self = (struct pool_object *)object;

    if (check_usable(self) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    fsx_pool_close(self->pool);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef pool_methods[] = {
    {"submit", (PyCFunction)(void (*)(void))pool_submit, METH_VARARGS | METH_KEYWORDS, submit_doc},
    {"submit_gets", (PyCFunction)(void (*)(void))pool_submit_gets, METH_VARARGS | METH_KEYWORDS,
     submit_gets_doc},
    {"cancel", (PyCFunction)(void (*)(void))pool_cancel, METH_VARARGS | METH_KEYWORDS, cancel_doc},
    {"collect", pool_collect, METH_NOARGS, collect_doc},
    {"fileno", pool_fileno, METH_NOARGS, fileno_doc},
    {"set_limits", pool_set_limits, METH_VARARGS, set_limits_doc},
    {"stats", pool_stats, METH_NOARGS, stats_doc},
    {"close", pool_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, (void *)pool_doc},
    {Py_tp_new, (void *)pool_new},
    {Py_tp_dealloc, (void *)pool_dealloc},
    {Py_tp_methods, pool_methods},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "fsxsync._core.TransferPool",
    .basicsize = sizeof(struct pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

int
fsx_transfer_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    int failed;

    if (type == NULL) {
        return -1;
    }
    failed = PyModule_AddObjectRef(module, "TransferPool", type);
    Py_DECREF(type);
    if (failed < 0) {
        return -1;
    }
    type = fsx_result_new_type();
    if (type == NULL) {
        return -1;
    }
    failed = PyModule_AddObjectRef(module, "TransferResult", type);
    Py_DECREF(type);
    return failed < 0 ? failed : fsx_result_add_constants(module);
}
