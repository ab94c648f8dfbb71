/* _core.TransferResult: what came of one job, for Python. */
#include "transfer_glue.h"

#include <string.h>
#include <structseq.h>

PyDoc_STRVAR(result_doc, "What came of one job of a TransferPool.");

static PyStructSequence_Field result_fields[] = {
    {"id", "what submit returned"},
    {"error", "a TRANSFER_ constant"},
    {"status", "the answer's, 0 if there was none"},
    {"headers", "the answer's, ((name, value), ...) in order, names in lower case"},
    {"body", "the answer's, as far as it was kept"},
    {"moved", "bytes written to the file, or handed to the socket"},
    {"xxh3_128", "of the file's range, canonical; None if not asked for, or on error"},
    {"crc64nvme", "of the file's range; None if not asked for, or on error"},
    {"errno", "of TRANSFER_LOCAL_IO, else 0"},
    {"message", "what went wrong, '' if nothing did"},
    {NULL, NULL},
};

static PyStructSequence_Desc result_description = {
    .name = "fsxsync._core.TransferResult",
    .doc = result_doc,
    .fields = result_fields,
    .n_in_sequence = 10,
};

/* Latin-1: what it is in HTTP, and no byte is refused. */
static PyObject *
text_of(const char *bytes)
{
    return PyUnicode_DecodeLatin1(bytes, (Py_ssize_t)strlen(bytes), NULL);
}

static PyObject *
headers_of(const struct fsx_job *job)
{
    const char *name = job->answer_headers;
    PyObject *headers = PyTuple_New((Py_ssize_t)job->answer_header_count);

    for (size_t i = 0; headers != NULL && i < job->answer_header_count; i++) {
        const char *value = name + strlen(name) + 1;
        PyObject *pair = Py_BuildValue("(NN)", text_of(name), text_of(value));
        if (pair == NULL) {
            Py_CLEAR(headers);
            break;
        }
        PyTuple_SET_ITEM(headers, (Py_ssize_t)i, pair);
        name = value + strlen(value) + 1;
    }
    return headers;
}

PyObject *
fsx_result_of(PyObject *type, const struct fsx_job *job)
{
    bool is_whole = job->error == FSX_TRANSFER_OK;
    PyObject *result = PyStructSequence_New((PyTypeObject *)type);
    PyObject *items[] = {
        PyLong_FromUnsignedLongLong(job->id),
        PyLong_FromLong((long)job->error),
        PyLong_FromLong(job->status),
        headers_of(job),
        PyBytes_FromStringAndSize((const char *)job->kept, (Py_ssize_t)job->kept_length),
        PyLong_FromLongLong(job->moved),
        is_whole && (job->hashes & FSX_TRANSFER_XXH3)
            ? PyBytes_FromStringAndSize((const char *)job->digest.digest, sizeof job->digest)
            : Py_NewRef(Py_None),
        is_whole && (job->hashes & FSX_TRANSFER_CRC64NVME) ? PyLong_FromUnsignedLongLong(job->crc)
                                                           : Py_NewRef(Py_None),
        PyLong_FromLong(job->error_number),
        /* libcurl quotes what servers say */
        PyUnicode_DecodeUTF8(job->message, (Py_ssize_t)strlen(job->message), "replace"),
    };
    bool failed = result == NULL;

    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        failed = failed || items[i] == NULL;
        if (result == NULL) {
            Py_XDECREF(items[i]);
        }
        else {
            PyStructSequence_SetItem(result, (Py_ssize_t)i, items[i]); /* steals, also NULL */
        }
    }
    if (failed) {
        Py_CLEAR(result);
    }
    return result;
}

PyObject *
fsx_result_ids(const uint64_t *ids, size_t count)
{
    PyObject *list = PyList_New((Py_ssize_t)count);

    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLongLong(ids[i]);
        if (id == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, id);
    }
    return list;
}

PyObject *
fsx_result_new_type(void)
{
    return (PyObject *)PyStructSequence_NewType(&result_description);
}

static const struct {
    const char *name;
    long value;
} constants[] = {
    {"TRANSFER_OK", FSX_TRANSFER_OK},
    {"TRANSFER_HTTP", FSX_TRANSFER_HTTP},
    {"TRANSFER_CONNECT", FSX_TRANSFER_CONNECT},
    {"TRANSFER_TIMEOUT", FSX_TRANSFER_TIMEOUT},
    {"TRANSFER_TLS", FSX_TRANSFER_TLS},
    {"TRANSFER_RESET", FSX_TRANSFER_RESET},
    {"TRANSFER_SHORT", FSX_TRANSFER_SHORT},
    {"TRANSFER_LONG", FSX_TRANSFER_LONG},
    {"TRANSFER_RANGE", FSX_TRANSFER_RANGE},
    {"TRANSFER_DAMAGED", FSX_TRANSFER_DAMAGED},
    {"TRANSFER_LOCAL_SHORT", FSX_TRANSFER_LOCAL_SHORT},
    {"TRANSFER_LOCAL_IO", FSX_TRANSFER_LOCAL_IO},
    {"TRANSFER_LOCAL_CHANGED", FSX_TRANSFER_LOCAL_CHANGED},
    {"TRANSFER_CANCELLED", FSX_TRANSFER_CANCELLED},
    {"TRANSFER_MEMORY", FSX_TRANSFER_MEMORY},
    {"TRANSFER_OTHER", FSX_TRANSFER_OTHER},
    {"TRANSFER_HASH_XXH3_128", FSX_TRANSFER_XXH3},
    {"TRANSFER_HASH_CRC64NVME", FSX_TRANSFER_CRC64NVME},
};

int
fsx_result_add_constants(PyObject *module)
{
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    return 0;
}
