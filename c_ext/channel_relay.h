/* Between /dev/fuse and libfuse: requests and answers pass, and on their way are completed by what
 * libfuse 3.14 does not know. Each direction has threads of its own, so that a full socket in one
 * never holds up the other. */
#ifndef FSX_CHANNEL_RELAY_H
#define FSX_CHANNEL_RELAY_H

#include "channel_answer.h"
#include "channel_awake.h"
#include "channel_direct.h"
#include "channel_pending.h"

/* Read requests: while one waits for the disk, the others go on. */
#define FSX_REQUEST_THREADS 3

struct fsx_channel {
    int device;   /* /dev/fuse */
    int relay;    /* our end of the pair */
    int event_fd; /* readable when the kernel's side has ended */
    int stop_fd;
    char *stub_xattr;
    atomic_bool is_stopping;
    struct fsx_awake awake;
    atomic_ulong taken;     /* requests */
    atomic_bool is_looking; /* one thread for requests is enough that does not sleep */
    atomic_ullong offered;  /* by the kernel's INIT */
    atomic_ullong passed;   /* requests that went to libfuse */
    atomic_ullong refused;  /* ... that we had made ourselves */
    pid_t process;          /* ours */
    struct fsx_pending pending;
    struct fsx_answerer answerer;
    struct fsx_direct direct;
    pthread_t down[FSX_REQUEST_THREADS], up; /* requests, answers */
    size_t down_started;
    bool is_up_started;
};

/* Take over `device`, of a mount whose INIT is still to be answered. 0, and libfuse's end in
 * `*session`; or an errno, and `device` is still the caller's. */
int fsx_channel_open(struct fsx_channel *channel, int device, const char *stub_xattr, int *session);

/* End the threads, close the device. What the journal holds can still be taken. Twice is
 * harmless. */
void fsx_channel_close(struct fsx_channel *channel);

/* Close it, and give all memory back. */
void fsx_channel_free(struct fsx_channel *channel);

#endif
