/* fsxsync._core.Channel: what its two files share. */
#ifndef FSX_CHANNEL_GLUE_H
#define FSX_CHANNEL_GLUE_H

#include "module.h"

#include "channel_relay.h"

struct channel_object {
    PyObject_HEAD struct fsx_channel channel;
    int session;
    pid_t owner; /* threads do not survive a fork */
};

/* channel_learning.c */
extern const char fsx_channel_answer_directly_doc[], fsx_channel_journal_fileno_doc[],
    fsx_channel_drain_doc[], fsx_channel_serve_doc[], fsx_channel_serve_no_more_doc[],
    fsx_channel_leave_to_python_doc[], fsx_channel_join_doc[], fsx_channel_leave_doc[],
    fsx_channel_is_absent_doc[], fsx_channel_keep_free_doc[], fsx_channel_present_doc[],
    fsx_birth_generation_doc[];
PyObject *fsx_channel_answer_directly(PyObject *object, PyObject *args);
PyObject *fsx_channel_journal_fileno(PyObject *object, PyObject *ignored);
PyObject *fsx_channel_drain(PyObject *object, PyObject *ignored);
PyObject *fsx_channel_serve(PyObject *object, PyObject *args);
PyObject *fsx_channel_serve_no_more(PyObject *object, PyObject *args);
PyObject *fsx_channel_leave_to_python(PyObject *object, PyObject *args);
PyObject *fsx_channel_join(PyObject *object, PyObject *args);
PyObject *fsx_channel_leave(PyObject *object, PyObject *args);
PyObject *fsx_channel_is_absent(PyObject *object, PyObject *args);
PyObject *fsx_channel_keep_free(PyObject *object, PyObject *args);
PyObject *fsx_channel_present(PyObject *object, PyObject *args);
PyObject *fsx_birth_generation(PyObject *module, PyObject *args);

#endif
