/* fsxsync._core.Channel: the thin part. What passes through it is in channel_relay.c and below. */
#include "module.h"

#include "channel_glue.h"
#include "channel_wire.h"

#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <sys/uio.h>
#include <unistd.h>

/* None, or OSError. */
static PyObject *
none_or_error(int error)
{
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(channel_doc,
             "Channel(device, stub_xattr)\n--\n\n"
             "Relay between /dev/fuse and libfuse, which gets a socket as its session.\n\n"
             "device: of a mount that was just made; closed by close(). stub_xattr: the name of\n"
             "the attribute that marks stubs, whose holes are not shown as holes.\n"
             "Make it after the last fork.");

static PyObject *
channel_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"device", "stub_xattr", NULL};
    struct channel_object *self;
    struct fsx_name stub_xattr;
    int device, error;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO&:Channel", names, &device,
                                     fsx_name_converter, &stub_xattr)) {
        return NULL;
    }
    self = (struct channel_object *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->owner = getpid();
    self->channel.relay = -1;
    Py_BEGIN_ALLOW_THREADS
    error = fsx_channel_open(&self->channel, device, stub_xattr.text, &self->session);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        Py_DECREF(self);
        return none_or_error(error);
    }
    return (PyObject *)self;
}

static void
channel_dealloc(PyObject *object)
{
    struct channel_object *self = (struct channel_object *)object;
    PyTypeObject *type = Py_TYPE(object);

    if (self->owner == getpid()) { /* in a child there is nobody to join: its copy is left alone */
        Py_BEGIN_ALLOW_THREADS
        fsx_channel_free(&self->channel);
        Py_END_ALLOW_THREADS
    }
    type->tp_free(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(fileno_doc,
             "fileno($self, /)\n--\n\n"
             "An eventfd, readable when the kernel's side has ended: unmounted, or aborted.");

static PyObject *
channel_fileno(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((struct channel_object *)object)->channel.event_fd);
}

PyDoc_STRVAR(stay_awake_doc,
             "stay_awake($self, /)\n--\n\n"
             "From now on all processors of the machine stay awake while the mount is asked one\n"
             "thing after another, and for 10 ms after it. OSError: that can't be had.");

static PyObject *
channel_stay_awake(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    return none_or_error(fsx_awake_want(&((struct channel_object *)object)->channel.awake));
}

/* Past libfuse, whose notifications would wait in the relay, and the answers they wait for behind
 * them. */
static PyObject *
notify(struct channel_object *self, int32_t what, struct iovec *parts, int count)
{
    struct fuse_out_header head = {.len = sizeof head, .error = what};
    ssize_t written;
    int error;

    parts[0] = (struct iovec){&head, sizeof head};
    for (int i = 1; i < count; i++) {
        head.len += (uint32_t)parts[i].iov_len;
    }
    Py_BEGIN_ALLOW_THREADS
    /* An answer that was found before what changed must not come after the notice of it. */
    fsx_tables_let_finish(&self->channel.direct.tables);
    written = writev(self->channel.device, parts, count);
    error = errno;
    Py_END_ALLOW_THREADS
    return none_or_error(written < 0 ? error : 0);
}

PyDoc_STRVAR(invalidate_inode_doc,
             "invalidate_inode($self, nodeid, attr_only, /)\n--\n\n"
             "The kernel forgets an inode's attributes, and its pages unless attr_only.\n\n"
             "With pages it may block; attributes alone never do. FileNotFoundError: it has none.");

static PyObject *
channel_invalidate_inode(PyObject *object, PyObject *args)
{
    unsigned long long nodeid;
    int attr_only;
    struct fuse_notify_inval_inode_out out = {0};
    struct iovec parts[2] = {{0}, {&out, sizeof out}};

    if (!PyArg_ParseTuple(args, "Kp:invalidate_inode", &nodeid, &attr_only)) {
        return NULL;
    }
    out.ino = nodeid;
    out.off = attr_only ? -1 : 0;
    return notify((struct channel_object *)object, FUSE_NOTIFY_INVAL_INODE, parts, 2);
}

PyDoc_STRVAR(invalidate_entry_doc,
             "invalidate_entry($self, parent, name, /)\n--\n\n"
             "The kernel forgets a name. Blocks while something is done in that directory.");

static PyObject *
channel_invalidate_entry(PyObject *object, PyObject *args)
{
    struct channel_object *self = (struct channel_object *)object;
    unsigned long long parent;
    struct fsx_name name;
    struct fuse_notify_inval_entry_out out = {0};
    struct iovec parts[3] = {{0}, {&out, sizeof out}, {0}};

    if (!PyArg_ParseTuple(args, "KO&:invalidate_entry", &parent, fsx_name_converter, &name)) {
        return NULL;
    }
    out.parent = parent;
    out.namelen = (uint32_t)strlen(name.text);
    parts[2] = (struct iovec){(char *)(uintptr_t)name.text, strlen(name.text) + 1};
    fsx_tables_present(&self->channel.direct.tables,
                       fsx_nodeid(&self->channel.direct.tables, parent), name.text);
    return notify(self, FUSE_NOTIFY_INVAL_ENTRY, parts, 3);
}

PyDoc_STRVAR(stats_doc, "stats($self, /)\n--\n\n"
                        "Since the start: requests that went to libfuse, that were answered "
                        "here,\nthat were refused because this process had made them. Now: "
                        "opens whose answer is awaited.");

static PyObject *
channel_stats(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct fsx_channel *channel = &((struct channel_object *)object)->channel;

    return Py_BuildValue("{s:K,s:K,s:K,s:n}", "requests", atomic_load(&channel->passed), "answered",
                         atomic_load(&channel->direct.answered), "refused",
                         atomic_load(&channel->refused), "opening",
                         (Py_ssize_t)atomic_load(&channel->pending.count));
}

PyDoc_STRVAR(counts_doc,
             "counts($self, /)\n--\n\n"
             "Requests that were answered here since the start: name -> (nanoseconds, buckets).\n\n"
             "Bucket k counts those that took less than 1024 ns << k, the last one all others.");

static PyObject *
channel_counts(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct fsx_counts *counts = &((struct channel_object *)object)->channel.direct.counts;
    PyObject *told = PyDict_New();

    for (uint32_t opcode = 0; told != NULL && opcode < FSX_OPCODES; opcode++) {
        const char *name = fsx_counts_name(opcode);
        PyObject *buckets = NULL, *pair = NULL;
        if (name == NULL || atomic_load(&counts->total_ns[opcode]) == 0) {
            continue;
        }
        buckets = PyList_New(FSX_BUCKETS);
        for (Py_ssize_t i = 0; buckets != NULL && i < FSX_BUCKETS; i++) {
            PyObject *count = PyLong_FromUnsignedLongLong(atomic_load(&counts->buckets[opcode][i]));
            if (count == NULL) {
                Py_CLEAR(buckets);
            }
            else {
                PyList_SET_ITEM(buckets, i, count);
            }
        }
        if (buckets != NULL) {
            pair = Py_BuildValue("KN", atomic_load(&counts->total_ns[opcode]), buckets);
        }
        if (pair == NULL || PyDict_SetItemString(told, name, pair) < 0) {
            Py_CLEAR(told);
        }
        Py_XDECREF(pair);
    }
    return told;
}

PyDoc_STRVAR(close_doc, "close($self, /)\n--\n\n"
                        "End the threads and close the device: the mount is dead from then on.\n\n"
                        "libfuse's end of the pair is libfuse's to close. Twice is harmless.");

static PyObject *
channel_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct channel_object *self = (struct channel_object *)object;

    Py_BEGIN_ALLOW_THREADS
    fsx_channel_close(&self->channel);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef channel_methods[] = {
    {"fileno", channel_fileno, METH_NOARGS, fileno_doc},
    {"invalidate_inode", channel_invalidate_inode, METH_VARARGS, invalidate_inode_doc},
    {"invalidate_entry", channel_invalidate_entry, METH_VARARGS, invalidate_entry_doc},
    {"stats", channel_stats, METH_NOARGS, stats_doc},
    {"counts", channel_counts, METH_NOARGS, counts_doc},
    {"close", channel_close, METH_NOARGS, close_doc},
    {"answer_directly", fsx_channel_answer_directly, METH_VARARGS, fsx_channel_answer_directly_doc},
    {"journal_fileno", fsx_channel_journal_fileno, METH_NOARGS, fsx_channel_journal_fileno_doc},
    {"drain", fsx_channel_drain, METH_NOARGS, fsx_channel_drain_doc},
    {"serve", fsx_channel_serve, METH_VARARGS, fsx_channel_serve_doc},
    {"serve_no_more", fsx_channel_serve_no_more, METH_VARARGS, fsx_channel_serve_no_more_doc},
    {"leave_to_python", fsx_channel_leave_to_python, METH_VARARGS, fsx_channel_leave_to_python_doc},
    {"join", fsx_channel_join, METH_VARARGS, fsx_channel_join_doc},
    {"leave", fsx_channel_leave, METH_VARARGS, fsx_channel_leave_doc},
    {"stay_awake", channel_stay_awake, METH_NOARGS, stay_awake_doc},
    {"keep_free", fsx_channel_keep_free, METH_VARARGS, fsx_channel_keep_free_doc},
    {"is_absent", fsx_channel_is_absent, METH_VARARGS, fsx_channel_is_absent_doc},
    {"present", fsx_channel_present, METH_VARARGS, fsx_channel_present_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef channel_members[] = {
    {"session", T_INT, offsetof(struct channel_object, session), READONLY,
     "libfuse's end of the pair."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, (void *)channel_doc},         {Py_tp_new, (void *)channel_new},
    {Py_tp_dealloc, (void *)channel_dealloc}, {Py_tp_methods, channel_methods},
    {Py_tp_members, channel_members},         {0, NULL},
};

static PyType_Spec channel_spec = {
    .name = "fsxsync._core.Channel",
    .basicsize = sizeof(struct channel_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};

static PyMethodDef functions[] = {
    {"birth_generation", fsx_birth_generation, METH_VARARGS, fsx_birth_generation_doc},
    {NULL, NULL, 0, NULL},
};

static const struct {
    const char *name;
    int value;
} constants[] = {
    {"FACT_MET", FSX_MET},
    {"FACT_FORGOTTEN", FSX_FORGOTTEN},
    {"FACT_OPENED", FSX_OPENED},
    {"FACT_CREATED", FSX_CREATED},
    {"FACT_UNLINKED", FSX_UNLINKED},
    {"FACT_FLUSHED", FSX_FLUSHED},
    {"FACT_RELEASED", FSX_RELEASED},
    {"FACT_OPENED_DIRECTORY", FSX_OPENED_DIRECTORY},
    {"FACT_RELEASED_DIRECTORY", FSX_RELEASED_DIRECTORY},
};

int
fsx_channel_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &channel_spec, NULL);
    int failed;

    if (type == NULL) {
        return -1;
    }
    failed = PyModule_AddObjectRef(module, "Channel", type);
    Py_DECREF(type);
    if (failed == 0) {
        failed = PyModule_AddFunctions(module, functions);
    }
    for (size_t i = 0; failed == 0 && i < sizeof constants / sizeof *constants; i++) {
        failed = PyModule_AddIntConstant(module, constants[i].name, constants[i].value);
    }
    return failed;
}
