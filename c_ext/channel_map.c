#include "channel_map.h"

#include <stdlib.h>

#define LEAST_ROOM 64

/* Where the key is, or would be. There always is a free slot. */
static size_t
place(const struct fsx_map *map, uint64_t key)
{
    size_t mask = map->room - 1, at = (size_t)fsx_map_spread(key) & mask;

    while (map->slots[at].key != 0 && map->slots[at].key != key) {
        at = (at + 1) & mask;
    }
    return at;
}

static bool
grow(struct fsx_map *map)
{
    struct fsx_map larger = {.room = map->room == 0 ? LEAST_ROOM : 2 * map->room};

    larger.slots = calloc(larger.room, sizeof *larger.slots);
    if (larger.slots == NULL) {
        return false;
    }
    larger.count = map->count;
    for (size_t i = 0; i < map->room; i++) {
        if (map->slots[i].key != 0) {
            larger.slots[place(&larger, map->slots[i].key)] = map->slots[i];
        }
    }
    free(map->slots);
    *map = larger;
    return true;
}

void
fsx_map_clear(struct fsx_map *map)
{
    free(map->slots);
    *map = (struct fsx_map){0};
}

uint64_t *
fsx_map_find(const struct fsx_map *map, uint64_t key)
{
    size_t at;

    if (map->count == 0 || key == 0) {
        return NULL;
    }
    at = place(map, key);
    return map->slots[at].key == key ? &map->slots[at].value : NULL;
}

bool
fsx_map_put(struct fsx_map *map, uint64_t key, uint64_t value)
{
    size_t at;

    if (4 * (map->count + 1) > 3 * map->room && !grow(map)) {
        return false;
    }
    at = place(map, key);
    map->count += map->slots[at].key == 0;
    map->slots[at] = (struct fsx_map_slot){key, value};
    return true;
}

bool
fsx_map_remove(struct fsx_map *map, uint64_t key)
{
    size_t mask = map->room - 1, hole, at;

    if (fsx_map_find(map, key) == NULL) {
        return false;
    }
    hole = at = place(map, key);
    /* Those behind it may stand where they do only because it stood in their way. */
    for (;;) {
        size_t home;
        at = (at + 1) & mask;
        if (map->slots[at].key == 0) {
            break;
        }
        home = (size_t)fsx_map_spread(map->slots[at].key) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            hole = at;
        }
    }
    map->slots[hole].key = 0;
    map->count--;
    return true;
}
