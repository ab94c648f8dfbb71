/* A table from numbers to numbers: open addressing, one allocation. Not thread-safe. */
#ifndef FSX_CHANNEL_MAP_H
#define FSX_CHANNEL_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fsx_map_slot {
    uint64_t key; /* 0: free */
    uint64_t value;
};

/* All zero: empty. */
struct fsx_map {
    struct fsx_map_slot *slots;
    size_t room; /* a power of two, or 0 */
    size_t count;
};

void fsx_map_clear(struct fsx_map *map);

/* The value, to be read or changed until the next change of the map; NULL if there is none. */
uint64_t *fsx_map_find(const struct fsx_map *map, uint64_t key);

/* Add or replace; `key` is not 0. False if there is no memory. */
bool fsx_map_put(struct fsx_map *map, uint64_t key, uint64_t value);

/* False if it is not there. */
bool fsx_map_remove(struct fsx_map *map, uint64_t key);

/* Spreads numbers that lie side by side, as inode numbers do. */
static inline uint64_t
fsx_map_spread(uint64_t key)
{
    key ^= key >> 32;
    key *= UINT64_C(0x9E3779B97F4A7C15);
    return key ^ key >> 29;
}

#endif
