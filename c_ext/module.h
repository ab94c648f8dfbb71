/* What the files of fsxsync._core share: each adds its own functions to the module. */
#ifndef FSX_MODULE_H
#define FSX_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Py_mod_exec slots: 0, or -1 with an exception set. */
int fsx_hashing_exec(PyObject *module);
int fsx_syscalls_exec(PyObject *module);
int fsx_getdents_exec(PyObject *module);
int fsx_directory_exec(PyObject *module);
int fsx_stub_exec(PyObject *module);
int fsx_look_exec(PyObject *module);
int fsx_records_exec(PyObject *module);
int fsx_release_exec(PyObject *module);
int fsx_hydrate_exec(PyObject *module);
int fsx_transfer_exec(PyObject *module);
int fsx_channel_exec(PyObject *module);
int fsx_channel_mount_exec(PyObject *module);

/* A name for a system call: bytes without NUL. Parse with "O&"; borrows from the argument. */
struct fsx_name {
    PyObject *object; /* for OSError.filename */
    const char *text;
};
int fsx_name_converter(PyObject *argument, void *name);

#endif
