/* Waiting for the kernel's requests: asleep as a rule, awake for a moment where the next one
 * follows. */
#ifndef FSX_CHANNEL_REQUESTS_H
#define FSX_CHANNEL_REQUESTS_H

#include "channel_relay.h"

/* One thread that reads requests. `credit`: how often it may look in vain before it sleeps. */
struct fsx_reader {
    int waiting, credit;
};

/* For `waiting`: wakes one of the threads that wait for a request, and all of them at the end. -1
 * and errno. */
int fsx_requests_wait(const struct fsx_channel *channel);

/* The length of the next request; 0: the kernel's side has ended, or we shall. */
size_t fsx_requests_next(struct fsx_channel *channel, struct fsx_reader *reader, char *buffer);

#endif
