/* Requests that are told apart before anybody is asked: our own, those of the dying, and those that
 * always get the same answer. */
#ifndef FSX_CHANNEL_SCREEN_H
#define FSX_CHANNEL_SCREEN_H

#include "channel_pending.h"

#include <linux/fuse.h>
#include <sys/types.h>

/* A thread of `process`, ours, has made it. */
bool fsx_screen_is_our_own(pid_t process, const struct fuse_in_header *head, const char *buffer,
                           size_t length);

/* The error that it gets if it asks for an attribute of a kind that the mount never shows; else 0.
 */
int fsx_screen_security(uint32_t opcode, const char *buffer, size_t length);

/* An INTERRUPT of somebody who was killed while it waits: it is told so. False: nothing was done.
 */
bool fsx_screen_gives_up(struct fsx_pending *awaited, int device, const char *buffer,
                         size_t length);

#endif
