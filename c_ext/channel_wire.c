#include "channel_wire.h"

#include <string.h>
#include <unistd.h>

/* What a session of ours always takes if the kernel has it. libfuse 3.14 leaves out
 * PARALLEL_DIROPS, without which one slow lookup holds up its directory. HANDLE_KILLPRIV_V2:
 * without it the kernel asks for security.capability before each write; with it, clearing set-id
 * bits is our duty (mount/setid.py). */
#define WANTED (FSX_INIT_EXT | FUSE_PARALLEL_DIROPS | FUSE_HANDLE_KILLPRIV_V2 | FSX_PASSTHROUGH)

uint64_t
fsx_init_offered(const void *request, size_t length)
{
    struct fuse_in_header head;
    struct fsx_init_in init = {0};

    if (length < sizeof head) {
        return 0;
    }
    memcpy(&head, request, sizeof head);
    if (head.opcode != FUSE_INIT) {
        return 0;
    }
    length -= sizeof head;
    memcpy(&init, (const char *)request + sizeof head, length < sizeof init ? length : sizeof init);
    if ((init.flags & FSX_INIT_EXT) == 0) { /* before Linux 5.17 there is nothing in flags2 */
        return init.flags;
    }
    return init.flags | (uint64_t)init.flags2 << 32;
}

static void
add_wanted(struct fsx_init_out *init, uint64_t offered)
{
    uint64_t flags = init->flags | (uint64_t)init->flags2 << 32;

    flags |= WANTED & offered;
    flags &= ~(uint64_t)FUSE_WRITEBACK_CACHE; /* excludes passthrough */
    init->flags = (uint32_t)flags;
    init->flags2 = (uint32_t)(flags >> 32);
    init->max_stack_depth = 1; /* the backing file system is none that stacks itself */
    if (init->max_write > FSX_CHANNEL_PAYLOAD) {
        init->max_write = FSX_CHANNEL_PAYLOAD;
    }
    if (init->flags & FUSE_MAX_PAGES) {
        init->max_pages = (uint16_t)(FSX_CHANNEL_PAYLOAD / (size_t)sysconf(_SC_PAGESIZE));
    }
}

size_t
fsx_init_rewrite(void *reply, size_t length, size_t room, uint64_t offered)
{
    struct fuse_out_header head;
    struct fsx_init_out init = {0}; /* what libfuse's is shorter by is zero */
    size_t given;

    memcpy(&head, reply, sizeof head);
    given = length - sizeof head;
    if (head.error != 0 || room < sizeof head + sizeof init) {
        return length;
    }
    memcpy(&init, (char *)reply + sizeof head, given < sizeof init ? given : sizeof init);
    add_wanted(&init, offered);
    head.len = sizeof head + sizeof init;
    memcpy(reply, &head, sizeof head);
    memcpy((char *)reply + sizeof head, &init, sizeof init);
    return head.len;
}

size_t
fsx_init_answer(void *reply, size_t room, const void *request, uint64_t offered)
{
    const struct fuse_in_header *asked = request;
    struct fuse_out_header head = {.len = sizeof head, .unique = asked->unique};
    struct fsx_init_out init = {.major = FUSE_KERNEL_VERSION,
                                .minor = FUSE_KERNEL_MINOR_VERSION,
                                .max_write = 4096,
                                .time_gran = 1};

    memcpy(reply, &head, sizeof head);
    memcpy((char *)reply + sizeof head, &init, sizeof init);
    return fsx_init_rewrite(reply, sizeof head + sizeof init, room, offered);
}

void
fsx_open_rewrite(void *reply, size_t length, uint32_t opcode)
{
    size_t at = sizeof(struct fuse_out_header);
    struct fuse_out_header head;
    struct fsx_open_out opened;

    if (opcode == FUSE_CREATE) {
        at += sizeof(struct fuse_entry_out);
    }
    if (length < at + sizeof opened) { /* an error */
        return;
    }
    memcpy(&head, reply, sizeof head);
    memcpy(&opened, (char *)reply + at, sizeof opened);
    opened.backing_id = fsx_fh_backing(opened.fh);
    if (head.error != 0) {
        return;
    }
    if (opened.fh & FSX_FH_NO_FLUSH) {
        opened.open_flags |= FOPEN_NOFLUSH;
    }
    if (opened.backing_id != 0) {
        opened.open_flags |= FSX_OPEN_PASSTHROUGH;
        opened.open_flags &= FSX_OPEN_WITH_PASSTHROUGH;
    }
    memcpy((char *)reply + at, &opened, sizeof opened);
}
