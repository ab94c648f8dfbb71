/* System calls that Python's os module lacks: the call without the GIL, its errno as OSError. */
#include "module.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* result = call without the GIL; again after a signal unless its Python handler raised (PEP 475).
 * Afterwards errno is the call's, and `raised` says whether an exception is set already. */
#define CALL(result, call)                                                                         \
    do {                                                                                           \
        PyThreadState *thread = PyEval_SaveThread();                                               \
        (result) = (call);                                                                         \
        int saved_errno = errno; /* taking the GIL back may change errno */                        \
        PyEval_RestoreThread(thread);                                                              \
        errno = saved_errno;                                                                       \
    } while ((result) < 0 && errno == EINTR && !(raised = PyErr_CheckSignals()))

/* OSError with the name it was about, where there is one; NULL in any case. */
static PyObject *
os_error(int raised, const struct fsx_name *name)
{
    if (raised) {
        return NULL;
    }
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name == NULL ? NULL : name->object);
}

int
fsx_name_converter(PyObject *argument, void *address)
{
    struct fsx_name *name = address;
    char *text;

    if (!PyBytes_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "expected bytes, not %.200s", Py_TYPE(argument)->tp_name);
        return 0;
    }
    if (PyBytes_AsStringAndSize(argument, &text, NULL) < 0) { /* ValueError on a NUL byte */
        return 0;
    }
    name->object = argument;
    name->text = text;
    return 1;
}

PyDoc_STRVAR(renameat2_doc, "renameat2(olddirfd, old, newdirfd, new, flags, /)\n--\n\n"
                            "Rename with RENAME_NOREPLACE or RENAME_EXCHANGE. See renameat2(2).");

static PyObject *
syscalls_renameat2(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_name old, new;
    int olddirfd, newdirfd, flags, result, raised = 0;

    if (!PyArg_ParseTuple(args, "iO&iO&i:renameat2", &olddirfd, fsx_name_converter, &old, &newdirfd,
                          fsx_name_converter, &new, &flags)) {
        return NULL;
    }
    /* unknown flags, negative ones too, are the kernel's EINVAL */
    CALL(result, renameat2(olddirfd, old.text, newdirfd, new.text, (unsigned int)flags));
    if (result < 0) {
        if (!raised) {
            PyErr_SetFromErrnoWithFilenameObjects(PyExc_OSError, old.object, new.object);
        }
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(openat2_doc,
             "openat2(dirfd, path, flags, mode, resolve, /)\n--\n\n"
             "Open with RESOLVE_* limits on the way to the file; O_CLOEXEC is always set.\n\n"
             "EXDEV: the path leads out. ELOOP: a symlink where none may be. See openat2(2).");

static PyObject *
syscalls_openat2(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct open_how how = {0};
    struct fsx_name path;
    long long flags, mode, resolve;
    int dirfd, raised = 0;
    long result;

    if (!PyArg_ParseTuple(args, "iO&LLL:openat2", &dirfd, fsx_name_converter, &path, &flags, &mode,
                          &resolve)) {
        return NULL;
    }
    if (flags < 0 || mode < 0 || resolve < 0) {
        PyErr_SetString(PyExc_ValueError, "flags, mode and resolve must not be negative");
        return NULL;
    }
    how.flags = (uint64_t)flags | O_CLOEXEC;
    how.mode = (uint64_t)mode;
    how.resolve = (uint64_t)resolve;
    CALL(result, syscall(SYS_openat2, dirfd, path.text, &how, sizeof how));
    return result < 0 ? os_error(raised, &path) : PyLong_FromLong(result);
}

PyDoc_STRVAR(fallocate_doc,
             "fallocate(fd, mode, offset, length, /)\n--\n\n"
             "Allocate or, with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, free a range "
             "of a file.\n\nSee fallocate(2).");

static PyObject *
syscalls_fallocate(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd, mode, result, raised = 0;
    long long offset, length;

    if (!PyArg_ParseTuple(args, "iiLL:fallocate", &fd, &mode, &offset, &length)) {
        return NULL;
    }
    if (offset < 0 || length < 0) {
        return PyErr_Format(PyExc_ValueError, "no such range: offset %lld, length %lld", offset,
                            length);
    }
    CALL(result, fallocate(fd, mode, (off_t)offset, (off_t)length));
    if (result < 0) {
        return os_error(raised, NULL);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(syncfs_doc, "syncfs(fd, /)\n--\n\n"
                         "Write everything of fd's file system to disk. See syncfs(2).");

static PyObject *
syscalls_syncfs(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd, result, raised = 0;

    if (!PyArg_ParseTuple(args, "i:syncfs", &fd)) {
        return NULL;
    }
    CALL(result, syncfs(fd));
    if (result < 0) {
        return os_error(raised, NULL);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    inode_generation_doc,
    "inode_generation(fd, /)\n--\n\n"
    "What tells two users of one inode number apart. OSError where a file system has none.");

static PyObject *
syscalls_inode_generation(PyObject *Py_UNUSED(module), PyObject *args)
{
    /* The request is declared with long and answered with int (fs/ext4/ioctl.c,
     * fs/xfs/xfs_ioctl.c). */
    uint32_t generation[sizeof(long) / sizeof(uint32_t)] = {0};
    int fd, result, raised = 0;

    if (!PyArg_ParseTuple(args, "i:inode_generation", &fd)) {
        return NULL;
    }
    CALL(result, ioctl(fd, FS_IOC_GETVERSION, generation));
    return result < 0 ? os_error(raised, NULL) : PyLong_FromUnsignedLong(generation[0]);
}

PyDoc_STRVAR(umount2_doc, "umount2(path, flags, /)\n--\n\n"
                          "Unmount; with MNT_DETACH as soon as nobody uses it. See umount2(2).");

static PyObject *
syscalls_umount2(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_name path;
    int flags, result, raised = 0;

    if (!PyArg_ParseTuple(args, "O&i:umount2", fsx_name_converter, &path, &flags)) {
        return NULL;
    }
    CALL(result, umount2(path.text, flags));
    if (result < 0) {
        return os_error(raised, &path);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"renameat2", syscalls_renameat2, METH_VARARGS, renameat2_doc},
    {"openat2", syscalls_openat2, METH_VARARGS, openat2_doc},
    {"fallocate", syscalls_fallocate, METH_VARARGS, fallocate_doc},
    {"syncfs", syscalls_syncfs, METH_VARARGS, syncfs_doc},
    {"inode_generation", syscalls_inode_generation, METH_VARARGS, inode_generation_doc},
    {"umount2", syscalls_umount2, METH_VARARGS, umount2_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_syscalls_exec(PyObject *module)
{
    if (PyModule_AddFunctions(module, methods) < 0 ||
        PyModule_AddIntMacro(module, RENAME_NOREPLACE) < 0 ||
        PyModule_AddIntMacro(module, RENAME_EXCHANGE) < 0 ||
        PyModule_AddIntMacro(module, RESOLVE_BENEATH) < 0 ||
        PyModule_AddIntMacro(module, RESOLVE_NO_SYMLINKS) < 0 ||
        PyModule_AddIntMacro(module, RESOLVE_NO_XDEV) < 0 ||
        PyModule_AddIntMacro(module, RESOLVE_NO_MAGICLINKS) < 0 ||
        PyModule_AddIntMacro(module, FALLOC_FL_KEEP_SIZE) < 0 ||
        PyModule_AddIntMacro(module, FALLOC_FL_PUNCH_HOLE) < 0 ||
        PyModule_AddIntMacro(module, MNT_DETACH) < 0) {
        return -1;
    }
    return 0;
}
