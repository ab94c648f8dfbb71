/* fsxsync._core.Channel, the second half: what Python tells the tables, and learns from the
 * journal. */
#include "channel_glue.h"

#include "channel_attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

static struct fsx_tables *
tables_of(PyObject *object)
{
    return &((struct channel_object *)object)->channel.direct.tables;
}

static PyObject *
none_or_no_memory(bool done)
{
    if (!done) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

const char fsx_channel_answer_directly_doc[] =
    "answer_directly($self, root_fd, timeout_ns, hidden, /)\n--\n\n"
    "From now on requests that need no decision are answered here, and noted for drain().\n\n"
    "root_fd: of the tree's root, open until close(). timeout_ns: how long the kernel may\n"
    "believe names and attributes. hidden: what starts so in the root is asked of Python.\n"
    "OSError ENOTSUP: the file system does not tell when files were made.";

PyObject *
fsx_channel_answer_directly(PyObject *object, PyObject *args)
{
    struct fsx_name hidden;
    long long timeout_ns;
    int root_fd, error;

    if (!PyArg_ParseTuple(args, "iLO&:answer_directly", &root_fd, &timeout_ns, fsx_name_converter,
                          &hidden)) {
        return NULL;
    }
    if (timeout_ns < 0) {
        return PyErr_Format(PyExc_ValueError, "timeout_ns is negative: %lld", timeout_ns);
    }
    atomic_store(&((struct channel_object *)object)->channel.answerer.root, root_fd);
    error = fsx_tables_switch_on(tables_of(object), root_fd, (uint64_t)timeout_ns, hidden.text);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

const char fsx_channel_journal_fileno_doc[] =
    "journal_fileno($self, /)\n--\n\nAn eventfd, readable while there is something to drain().";

PyObject *
fsx_channel_journal_fileno(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct channel_object *self = (struct channel_object *)object;
    return PyLong_FromLong(self->channel.direct.journal.event_fd);
}

static PyObject *
tuple_of(const struct fsx_fact *fact)
{
    int kind = (int)fact->kind;

    switch (fact->kind) {
    case FSX_MET:
        return Py_BuildValue("(iKyKIII)", kind, fact->parent, fact->name, fact->ino,
                             fact->generation, fact->mode, fact->nlink);
    case FSX_CREATED:
        return Py_BuildValue("(iKyKIIIKII)", kind, fact->parent, fact->name, fact->ino,
                             fact->generation, fact->mode, fact->nlink, fact->handle, fact->uid,
                             fact->flags);
    case FSX_FORGOTTEN:
        return Py_BuildValue("(iKK)", kind, fact->ino, fact->count);
    case FSX_OPENED:
        return Py_BuildValue("(iKKI)", kind, fact->ino, fact->handle, fact->uid);
    case FSX_UNLINKED:
        return Py_BuildValue("(iKyKIK)", kind, fact->parent, fact->name, fact->ino, fact->nlink,
                             fact->handle);
    case FSX_OPENED_DIRECTORY:
        return Py_BuildValue("(iKK)", kind, fact->ino, fact->handle);
    default:
        return Py_BuildValue("(iK)", kind, fact->handle);
    }
}

const char fsx_channel_drain_doc[] =
    "drain($self, /)\n--\n\n"
    "What was answered since the last call, oldest first. After close() too.\n\n"
    "(FACT_MET, parent, name, inode, generation, mode, nlink), (FACT_FORGOTTEN, inode, lookups),\n"
    "(FACT_CREATED, as MET, handle, uid, flags), (FACT_OPENED, inode, handle, uid),\n"
    "(FACT_UNLINKED, parent, name, inode, nlink before, fd that holds it), (FACT_FLUSHED, "
    "handle), (FACT_RELEASED, handle),\n"
    "(FACT_OPENED_DIRECTORY, inode, fd), (FACT_RELEASED_DIRECTORY, fd). Inodes are the host's.";

PyObject *
fsx_channel_drain(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    struct channel_object *self = (struct channel_object *)object;
    struct fsx_fact *fact = fsx_journal_take(&self->channel.direct.journal);
    PyObject *facts;

    if (fact == NULL) {
        return PyTuple_New(0); /* always the same one: this is asked before each request */
    }
    facts = PyList_New(0);
    for (const struct fsx_fact *one = fact; facts != NULL && one != NULL; one = one->next) {
        PyObject *tuple = tuple_of(one);
        if (tuple == NULL || PyList_Append(facts, tuple) < 0) {
            Py_CLEAR(facts);
        }
        Py_XDECREF(tuple);
    }
    if (facts == NULL) {
        fsx_journal_put_back(&self->channel.direct.journal, fact);
        return NULL;
    }
    while (fact != NULL) {
        struct fsx_fact *next = fact->next;
        free(fact);
        fact = next;
    }
    return facts;
}

const char fsx_channel_serve_doc[] =
    "serve($self, inode, fd, is_writable, /)\n--\n\n"
    "Names in a directory may be looked up through fd, until serve_no_more(). is_writable:\n"
    "applications may make files in it.";

PyObject *
fsx_channel_serve(PyObject *object, PyObject *args)
{
    unsigned long long ino;
    int fd, is_writable;
    bool done;

    if (!PyArg_ParseTuple(args, "Kip:serve", &ino, &fd, &is_writable)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS /* it waits for answers on their way */
    done = fsx_tables_serve(tables_of(object), ino, fd, is_writable != 0);
    Py_END_ALLOW_THREADS
    return none_or_no_memory(done);
}

const char fsx_channel_serve_no_more_doc[] = "serve_no_more($self, inode, /)\n--\n\n"
                                             "On return nobody uses its descriptor any more.";

PyObject *
fsx_channel_serve_no_more(PyObject *object, PyObject *args)
{
    unsigned long long ino;

    if (!PyArg_ParseTuple(args, "K:serve_no_more", &ino)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    fsx_tables_serve_no_more(tables_of(object), ino);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

const char fsx_channel_leave_to_python_doc[] =
    "leave_to_python($self, inode, is_pythons, /)\n--\n\n"
    "Whether requests for an inode are not answered here from now on.";

PyObject *
fsx_channel_leave_to_python(PyObject *object, PyObject *args)
{
    unsigned long long ino;
    int is_pythons;
    bool done;

    if (!PyArg_ParseTuple(args, "Kp:leave_to_python", &ino, &is_pythons)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    done = fsx_tables_leave_to_python(tables_of(object), ino, is_pythons != 0);
    Py_END_ALLOW_THREADS
    return none_or_no_memory(done);
}

const char fsx_channel_join_doc[] =
    "join($self, inode, fd, may_pass, /)\n--\n\n"
    "How the kernel serves an inode that is about to be opened: a backing id, for the upper\n"
    "half of file handles, or 0: through us. Whoever opens it first decides, for all who do\n"
    "until as many have called leave(). fd: for reading, what the kernel keeps of it does not\n"
    "count as a writer. OSError: the kernel refused.";

PyObject *
fsx_channel_join(PyObject *object, PyObject *args)
{
    struct channel_object *self = (struct channel_object *)object;
    unsigned long long ino;
    int fd, may_pass;
    int64_t id;

    if (!PyArg_ParseTuple(args, "Kip:join", &ino, &fd, &may_pass)) {
        return NULL;
    }
    id = fsx_tables_join(tables_of(object), self->channel.device, ino, fd, may_pass != 0);
    return id < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLongLong(id);
}

const char fsx_channel_leave_doc[] = "leave($self, inode, /)\n--\n\nIt is closed by one.";

PyObject *
fsx_channel_leave(PyObject *object, PyObject *args)
{
    struct channel_object *self = (struct channel_object *)object;
    unsigned long long ino;

    if (!PyArg_ParseTuple(args, "K:leave", &ino)) {
        return NULL;
    }
    fsx_tables_leave(tables_of(object), self->channel.device, ino);
    Py_RETURN_NONE;
}

const char fsx_channel_keep_free_doc[] =
    "keep_free($self, size, /)\n--\n\n"
    "With fewer bytes of the tree's disk free, files are made by Python only; 0: never mind.";

PyObject *
fsx_channel_keep_free(PyObject *object, PyObject *args)
{
    unsigned long long size;

    if (!PyArg_ParseTuple(args, "K:keep_free", &size)) {
        return NULL;
    }
    atomic_store_explicit(&tables_of(object)->least_free, size, memory_order_relaxed);
    Py_RETURN_NONE;
}

const char fsx_channel_is_absent_doc[] =
    "is_absent($self, parent, name, /)\n--\n\n"
    "Whether the kernel may believe that there is no such name. By the host's inode.";

PyObject *
fsx_channel_is_absent(PyObject *object, PyObject *args)
{
    unsigned long long parent;
    struct fsx_name name;

    if (!PyArg_ParseTuple(args, "KO&:is_absent", &parent, fsx_name_converter, &name)) {
        return NULL;
    }
    return PyBool_FromLong(fsx_tables_is_absent(tables_of(object), parent, name.text));
}

const char fsx_channel_present_doc[] =
    "present($self, parent, name, inode, generation, /)\n--\n\n"
    "The kernel learns in the answer to come that it is there. By the host's inodes.";

PyObject *
fsx_channel_present(PyObject *object, PyObject *args)
{
    unsigned long long parent, ino;
    unsigned int generation;
    struct fsx_name name;

    if (!PyArg_ParseTuple(args, "KO&KI:present", &parent, fsx_name_converter, &name, &ino,
                          &generation)) {
        return NULL;
    }
    fsx_tables_present(tables_of(object), parent, name.text);
    fsx_tables_name(tables_of(object), ino, parent, generation, name.text);
    Py_RETURN_NONE;
}

const char fsx_birth_generation_doc[] =
    "birth_generation(dirfd, name, inode, /)\n--\n\n"
    "Tells an inode from an earlier one of its number: made from when it was made. 32 bits.\n\n"
    "An empty name: dirfd itself. 0 where the file system does not tell. OSError ESTALE: another\n"
    "inode stands there.";

PyObject *
fsx_birth_generation(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_name name;
    struct statx status;
    unsigned long long ino;
    int dirfd;

    if (!PyArg_ParseTuple(args, "iO&K:birth_generation", &dirfd, fsx_name_converter, &name, &ino)) {
        return NULL;
    }
    /* Quick enough to keep the GIL: the inode was just looked at. */
    if (statx(dirfd, name.text, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_INO | STATX_BTIME,
              &status) < 0) {
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name.object);
    }
    if (status.stx_ino != ino) {
        errno = ESTALE;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name.object);
    }
    return PyLong_FromUnsignedLong(
        status.stx_mask & STATX_BTIME ? fsx_attributes_generation(&status) : 0);
}
