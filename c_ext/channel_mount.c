/* Mounting without libfuse, and finding out beforehand whether the kernel will pass reads and
 * writes through. */
#include "module.h"

#include "channel_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int mount(const char *source, const char *target, const char *type, unsigned long flags,
          const void *data); /* <sys/mount.h> and <linux/mount.h> exclude each other */

#define INIT_WITHIN_MS 10000

/* --- no PyObject, any thread --- */

/* A FUSE superblock that is mounted nowhere, on which the kernel has asked INIT. The descriptor of
 * its context, or -1 and errno. */
static int
new_superblock(int device)
{
    char number[16];
    int context = (int)syscall(SYS_fsopen, "fuse", FSOPEN_CLOEXEC);

    if (context < 0) {
        return -1;
    }
    (void)snprintf(number, sizeof number, "%d", device);
    if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "fd", number, 0) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "rootmode", "40000", 0) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "user_id", "0", 0) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "group_id", "0", 0) < 0 ||
        syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
        int error = errno;
        (void)close(context);
        errno = error;
        return -1;
    }
    return context;
}

/* Go through INIT on that superblock, then register the file. 0 or an errno; ENOSYS: the kernel
 * does not offer it. */
static int
try_passthrough(int device, int fd)
{
    char request[FSX_CHANNEL_MESSAGE], reply[256];
    struct pollfd ready = {.fd = device, .events = POLLIN};
    struct fsx_backing_map map = {.fd = fd};
    uint64_t offered;
    uint32_t id;
    ssize_t got;
    size_t size;
    int result;

    if (poll(&ready, 1, INIT_WITHIN_MS) <= 0) {
        return ETIMEDOUT;
    }
    got = read(device, request, sizeof request);
    if (got < 0) {
        return errno;
    }
    offered = fsx_init_offered(request, (size_t)got);
    if ((offered & FSX_PASSTHROUGH) == 0) {
        return ENOSYS;
    }
    size = fsx_init_answer(reply, sizeof reply, request, offered);
    if (write(device, reply, size) < 0) {
        return errno;
    }
    result = ioctl(device, FSX_DEV_IOC_BACKING_OPEN, &map);
    if (result < 0) {
        return errno;
    }
    id = (uint32_t)result;
    (void)ioctl(device, FSX_DEV_IOC_BACKING_CLOSE, &id);
    return 0;
}

static int
probe(int fd)
{
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    int context = -1, error = 0;

    if (device < 0) {
        return errno;
    }
    context = new_superblock(device);
    error = context < 0 ? errno : try_passthrough(device, fd);
    (void)close(device); /* first: ends the connection, so that nothing waits for us */
    if (context >= 0) {
        (void)close(context);
    }
    return error;
}

/* --- glue --- */

PyDoc_STRVAR(passthrough_probe_doc,
             "passthrough_probe(fd, /)\n--\n\n"
             "Find out whether the kernel would pass reads and writes through to fd's file.\n\n"
             "OSError if not. ENOSYS: it can't (before Linux 6.9, or built without). EPERM: it\n"
             "needs CAP_SYS_ADMIN. ELOOP: the file's file system is stacked on another one.");

static PyObject *
mount_passthrough_probe(PyObject *Py_UNUSED(module), PyObject *args)
{
    int fd, error;

    if (!PyArg_ParseTuple(args, "i:passthrough_probe", &fd)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    error = probe(fd);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(mount_doc, "mount(source, target, fstype, flags, options, /)\n--\n\n"
                        "Mount a file system. See mount(2).");

static PyObject *
mount_mount(PyObject *Py_UNUSED(module), PyObject *args)
{
    struct fsx_name source, target, type, options;
    unsigned long flags;
    int result, error;

    if (!PyArg_ParseTuple(args, "O&O&O&kO&:mount", fsx_name_converter, &source, fsx_name_converter,
                          &target, fsx_name_converter, &type, &flags, fsx_name_converter,
                          &options)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    result = mount(source.text, target.text, type.text, flags, options.text);
    error = errno;
    Py_END_ALLOW_THREADS
    if (result < 0) {
        errno = error;
        return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, target.object);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"mount", mount_mount, METH_VARARGS, mount_doc},
    {"passthrough_probe", mount_passthrough_probe, METH_VARARGS, passthrough_probe_doc},
    {NULL, NULL, 0, NULL},
};

static const struct {
    const char *name;
    long value;
} constants[] = {
    {"MS_RDONLY", MS_RDONLY},           {"MS_NOSUID", MS_NOSUID},   {"MS_NODEV", MS_NODEV},
    {"MS_NOEXEC", MS_NOEXEC},           {"MS_NOATIME", MS_NOATIME}, {"MS_DIRSYNC", MS_DIRSYNC},
    {"MS_SYNCHRONOUS", MS_SYNCHRONOUS},
};

int
fsx_channel_mount_exec(PyObject *module)
{
    int failed = PyModule_AddFunctions(module, methods);

    for (size_t i = 0; failed == 0 && i < sizeof constants / sizeof *constants; i++) {
        failed = PyModule_AddIntConstant(module, constants[i].name, constants[i].value);
    }
    return failed;
}
