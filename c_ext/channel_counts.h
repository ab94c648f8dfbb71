/* How many requests of each kind were answered here, and how long that took. */
#ifndef FSX_CHANNEL_COUNTS_H
#define FSX_CHANNEL_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>

#define FSX_OPCODES 64
#define FSX_BUCKETS 25 /* as in fsxsync/model/measures.py */

struct fsx_counts {
    atomic_ullong total_ns[FSX_OPCODES];
    atomic_ullong buckets[FSX_OPCODES][FSX_BUCKETS];
};

/* A clock that never goes back. */
uint64_t fsx_counts_now(void);

/* A request was answered; it was taken up at `since`. Any thread. */
void fsx_counts_note(struct fsx_counts *counts, uint32_t opcode, uint64_t since);

/* What pyfuse3 calls the handler of such requests; NULL: none that is counted. */
const char *fsx_counts_name(uint32_t opcode);

#endif
