/* Between a job and Python: both ways of the glue that transfer.c is the middle of. */
#ifndef FSX_TRANSFER_GLUE_H
#define FSX_TRANSFER_GLUE_H

#include "module.h"

#include "transfer_pool.h"

#define FSX_LONGEST_S (365 * 24 * 3600)

/* A new job from the arguments of submit; NULL with an exception. */
struct fsx_job *fsx_request_parse(PyObject *args, PyObject *kwargs);

/* New jobs from the tuple of tuples that submit_gets is given; NULL with an exception. */
struct fsx_job **fsx_request_parse_gets(PyObject *gets, long long priority, const char *proxy);
void fsx_request_free_gets(struct fsx_job **jobs,
                           Py_ssize_t count); /* and those that are not NULL */

/* 0, or -1 with ValueError. */
int fsx_check_range(const char *name, long long value, long long least, long long most);

PyObject *fsx_result_ids(const uint64_t *ids, size_t count); /* a list */
int fsx_result_add_constants(PyObject *module);
PyObject *fsx_result_new_type(void);
PyObject *fsx_result_of(PyObject *type, const struct fsx_job *job);

#endif
