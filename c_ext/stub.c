/* Making a stub: one call for what an import does a million times. */
#include "look.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

/* --- no PyObject, any thread --- */

struct stub {
    int dirfd;
    const char *name;
    int64_t size;
    mode_t mode;
    uid_t uid; /* (uid_t)-1: as created */
    gid_t gid;
    struct timespec times[2]; /* atime, mtime */
    const char *xattr_name;
    const void *xattr_value;
    size_t xattr_size;
};

static int
fill(int fd, const struct stub *stub, struct stat *status)
{
    /* The xattr first: the file never has a size without saying that its zeros are not data. */
    if (fsetxattr(fd, stub->xattr_name, stub->xattr_value, stub->xattr_size, XATTR_CREATE) < 0 ||
        ftruncate(fd, (off_t)stub->size) < 0) {
        return -1;
    }
    if ((stub->uid != (uid_t)-1 || stub->gid != (gid_t)-1) &&
        fchown(fd, stub->uid, stub->gid) < 0) {
        return -1;
    }
    /* after fchown, which clears the set-id bits; times after all that changes them */
    if (fchmod(fd, stub->mode) < 0 || futimens(fd, stub->times) < 0) {
        return -1;
    }
    return fstat(fd, status);
}

/* 0, or the errno of what failed; then nothing is left behind. */
static int
create(const struct stub *stub, struct stat *status)
{
    int error = 0;
    int fd;

    do {
        fd = openat(stub->dirfd, stub->name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW,
                    0600);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return errno;
    }
    if (fill(fd, stub, status) < 0) {
        error = errno;
        (void)unlinkat(stub->dirfd, stub->name, 0);
    }
    (void)close(fd); /* no data was written: there is nothing that close could report */
    return error;
}

/* --- glue --- */

/* -1 or an id; (uid_t)-1 itself is no id. */
static int
is_id(long long value)
{
    return value >= -1 && value < (long long)UINT32_MAX;
}

PyDoc_STRVAR(create_stub_doc,
             "create_stub(dirfd, name, size, mode, uid, gid, atime_ns, mtime_ns, xattr_name, "
             "xattr_value, /)\n"
             "--\n\n"
             "Make a sparse file of that size, which carries the xattr before anything else.\n\n"
             "Returns (inode, ctime_ns, device). A uid or gid of -1 is left as created.\n"
             "On an error nothing is left behind; FileExistsError if the name is taken.");

static PyObject *
create_stub(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_name name, xattr_name;
    Py_buffer value;
    struct stub stub = {0};
    struct stat status;
    long long size, mode, uid, gid, atime_ns, mtime_ns;
    int error;

    if (!PyArg_ParseTuple(args, "iO&LLLLLLO&y*:create_stub", &stub.dirfd, fsx_name_converter, &name,
                          &size, &mode, &uid, &gid, &atime_ns, &mtime_ns, fsx_name_converter,
                          &xattr_name, &value)) {
        return NULL;
    }
    if (size < 0 || mode < 0 || mode > 07777 || !is_id(uid) || !is_id(gid)) {
        PyErr_Format(PyExc_ValueError, "no such file: size %lld, mode 0x%llx, uid %lld, gid %lld",
                     size, (unsigned long long)mode, uid, gid);
        PyBuffer_Release(&value);
        return NULL;
    }
    stub.name = name.text;
    stub.size = size;
    stub.mode = (mode_t)mode;
    stub.uid = (uid_t)uid;
    stub.gid = (gid_t)gid;
    stub.times[0] = fsx_timespec(atime_ns);
    stub.times[1] = fsx_timespec(mtime_ns);
    stub.xattr_name = xattr_name.text;
    stub.xattr_value = value.buf;
    stub.xattr_size = (size_t)value.len;
    Py_BEGIN_ALLOW_THREADS
    error = create(&stub, &status);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&value);
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name.object);
    }
    return Py_BuildValue("(KLK)", (unsigned long long)status.st_ino,
                         (long long)status.st_ctim.tv_sec * NS_PER_S + status.st_ctim.tv_nsec,
                         (unsigned long long)status.st_dev);
}

static PyMethodDef methods[] = {
    {"create_stub", create_stub, METH_VARARGS, create_stub_doc},
    {NULL, NULL, 0, NULL},
};

int
fsx_stub_exec(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}
