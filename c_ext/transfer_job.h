/* One request of the transfer pool: what was asked, and what came of it. Knows no Python. */
#ifndef FSX_TRANSFER_JOB_H
#define FSX_TRANSFER_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <xxhash.h>

#define FSX_TRANSFER_MESSAGE 256

enum fsx_transfer_error {
    FSX_TRANSFER_OK,
    FSX_TRANSFER_HTTP,          /* another status than the expected one */
    FSX_TRANSFER_CONNECT,       /* no address, or nobody there */
    FSX_TRANSFER_TIMEOUT,       /* connecting, too slow, or over the job's own limit */
    FSX_TRANSFER_TLS,           /* no trust, or no common ground */
    FSX_TRANSFER_RESET,         /* the connection broke */
    FSX_TRANSFER_SHORT,         /* the answer ended early, or is shorter than asked */
    FSX_TRANSFER_LONG,          /* the answer is longer than asked, or than may be kept */
    FSX_TRANSFER_RANGE,         /* another range than asked, or the whole object */
    FSX_TRANSFER_DAMAGED,       /* the answer's bytes are not the expected ones */
    FSX_TRANSFER_LOCAL_SHORT,   /* the file ended inside the range to send */
    FSX_TRANSFER_LOCAL_IO,      /* pread or pwrite failed: see `error_number` */
    FSX_TRANSFER_LOCAL_CHANGED, /* the file's bytes are not the expected ones; not all were sent */
    FSX_TRANSFER_CANCELLED,
    FSX_TRANSFER_MEMORY,
    FSX_TRANSFER_OTHER,
};

enum fsx_transfer_hashes { FSX_TRANSFER_XXH3 = 1, FSX_TRANSFER_CRC64NVME = 2 };

enum fsx_job_state { FSX_JOB_NEW, FSX_JOB_WAITING, FSX_JOB_RUNNING, FSX_JOB_DONE };

struct curl_slist;
struct fsx_lane;
struct fsx_worker;

struct fsx_job {
    /* asked: set before the job is submitted, not changed after that */
    char *method;
    char *url;
    char *proxy;                /* NULL: none, whatever the environment says */
    struct curl_slist *headers; /* "Name: value" */
    size_t header_count;
    size_t header_bytes;
    int fd;       /* -1, or our own descriptor of the file whose range is moved */
    bool is_sink; /* the answer's body goes to the file; else the file is the request's body */
    int64_t offset;
    int64_t length;        /* also the length of `body` */
    unsigned char *body;   /* instead of a file: a small request body */
    int64_t object_offset; /* -1, or the first byte of the object that a 206 must begin with */
    long expect_status;    /* 0: any 2xx */
    unsigned hashes;       /* enum fsx_transfer_hashes, of the file's range */
    bool expects_crc;      /* of the file's range; wants FSX_TRANSFER_CRC64NVME in `hashes` */
    uint64_t expected_crc;
    bool drops_metadata; /* of the answer's headers, what users have said of an object */
    size_t keep_body;    /* the most of an answer's body to keep in memory */
    int64_t timeout_ms;  /* 0: none */
    int64_t low_speed_s; /* -1: the pool's; 0: however slow */
    unsigned priority;
    bool gives_times; /* to the file, whatever comes of the job once bytes may have been written */
    struct timespec times[2]; /* of the last access and of the last change */

    /* the pool's, under its mutex */
    uint64_t id;
    enum fsx_job_state state;
    struct fsx_job *previous, *next;
    struct fsx_lane *lane;     /* NULL: it waits for no other one */
    bool is_held;              /* by its lane, while waiting */
    struct fsx_worker *worker; /* while running */
    atomic_bool cancelled;     /* set under the mutex, read without it */

    /* what came of it: the worker's while running, the collector's when done */
    enum fsx_transfer_error error;
    int error_number; /* errno of FSX_TRANSFER_LOCAL_IO */
    char message[FSX_TRANSFER_MESSAGE];
    long status;          /* 0: no answer */
    char *answer_headers; /* name NUL value NUL ..., names in lower case */
    size_t answer_header_count;
    unsigned char *kept;
    size_t kept_length, kept_room;
    int64_t moved; /* body bytes written to the file, or handed to the socket */
    XXH128_canonical_t digest;
    uint64_t crc;
};

/* NULL without memory. The new job has no headers, no file and no body. */
struct fsx_job *fsx_job_new(const char *method, const char *url, const char *proxy);
/* Add a header that fsx_headers_refuse let pass. False without memory. */
bool fsx_job_add_header(struct fsx_job *job, const char *header);
void fsx_job_close_fd(struct fsx_job *job);
void fsx_job_free(struct fsx_job *job);

/* Say what went wrong. The first thing said stays: what follows is mostly its consequence. */
__attribute__((format(printf, 3, 4))) void
fsx_job_fail(struct fsx_job *job, enum fsx_transfer_error error, const char *format, ...);

/* Append to `kept`, up to keep_body. False if it did not fit, or without memory (a failure then).
 */
bool fsx_job_keep(struct fsx_job *job, const void *data, size_t length);

#endif
