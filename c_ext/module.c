/* fsxsync._core: the definition of the module, and nothing else. */
#include "module.h"

PyDoc_STRVAR(module_doc,
             "The data plane: hashing, transfers, and the system calls that the os module lacks.");

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)fsx_hashing_exec},
    {Py_mod_exec, (void *)fsx_syscalls_exec},
    {Py_mod_exec, (void *)fsx_getdents_exec},
    {Py_mod_exec, (void *)fsx_directory_exec},
    {Py_mod_exec, (void *)fsx_stub_exec},
    {Py_mod_exec, (void *)fsx_look_exec},
    {Py_mod_exec, (void *)fsx_records_exec},
    {Py_mod_exec, (void *)fsx_release_exec},
    {Py_mod_exec, (void *)fsx_hydrate_exec},
    {Py_mod_exec, (void *)fsx_transfer_exec},
    {Py_mod_exec, (void *)fsx_channel_exec},
    {Py_mod_exec, (void *)fsx_channel_mount_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "fsxsync._core",
    .m_doc = module_doc,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_definition);
}
