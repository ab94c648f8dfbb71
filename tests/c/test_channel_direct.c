/* Answers and the tables behind them under sanitizers: many threads ask while one changes what they
 * ask about; and the map against a plain array. */
#include "channel_attributes.h"
#include "channel_direct.h"
#include "channel_wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS 500
#define STEPS 200000
#define ASKERS 4
#define ROUNDS 400
#define FILES 50

static void
test_map(void)
{
    struct fsx_map map = {0};
    uint64_t expected[KEYS + 1] = {0};
    uint64_t state = 88172645463325252u;
    size_t count = 0;

    for (int i = 0; i < STEPS; i++) {
        uint64_t key, *found;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        key = state % KEYS + 1;
        if (state >> 40 & 1) {
            count += expected[key] == 0;
            expected[key] = state | 1;
            assert(fsx_map_put(&map, key, expected[key]));
        }
        else {
            assert(fsx_map_remove(&map, key) == (expected[key] != 0));
            count -= expected[key] != 0;
            expected[key] = 0;
        }
        key = state >> 20 & 255;
        found = fsx_map_find(&map, key);
        assert((found == NULL) == (expected[key] == 0));
        assert(found == NULL || *found == expected[key]);
        assert(map.count == count);
    }
    fsx_map_clear(&map);
    assert(fsx_map_find(&map, 1) == NULL);
}

/* --- */

struct world {
    struct fsx_direct direct;
    uint64_t directory;
    int fd;
    atomic_size_t met, created, released, passed;
    atomic_bool is_done;
};

static bool
ask(struct world *world, uint32_t opcode, const void *body, size_t size)
{
    char request[512], room[FSX_CHANNEL_MESSAGE];
    struct fuse_in_header head = {.opcode = opcode, .nodeid = world->directory, .unique = 2};

    memcpy(request, &head, sizeof head);
    memcpy(request + sizeof head, body, size);
    return fsx_direct_answer(&world->direct, request, sizeof head + size, room);
}

static void
ask_about(struct world *world, int number)
{
    struct fuse_create_in create = {.flags = O_WRONLY, .mode = 0644};
    struct fuse_getattr_in getattr = {0};
    struct fuse_release_in release = {.fh = 7};
    char name[32], body[64];
    int length = snprintf(name, sizeof name, "f%d", number) + 1;

    if (ask(world, FUSE_LOOKUP, name, (size_t)length)) {
        atomic_fetch_add(faccessat(world->fd, name, F_OK, 0) == 0 ? &world->met : &world->passed,
                         1);
    }
    memcpy(body, &create, sizeof create);
    memcpy(body + sizeof create, name, (size_t)length);
    if (ask(world, FUSE_CREATE, body, sizeof create + (size_t)length)) {
        atomic_fetch_add(&world->created, 1);
    }
    (void)ask(world, FUSE_GETATTR, &getattr, sizeof getattr);
    (void)fsx_attributes_look_ahead(&world->direct.tables);
    if (ask(world, FUSE_RELEASE, &release, sizeof release)) {
        atomic_fetch_add(&world->released, 1);
    }
}

static void *
ask_all(void *argument)
{
    struct world *world = argument;
    unsigned int seed = (unsigned int)(uintptr_t)&seed;

    for (int i = 0; i < ROUNDS; i++) {
        ask_about(world, rand_r(&seed) % FILES);
    }
    return NULL;
}

static void *
change_all(void *argument)
{
    struct world *world = argument;
    struct stat status;

    while (!atomic_load(&world->is_done)) {
        struct fsx_tables *tables = &world->direct.tables;
        fsx_tables_serve_no_more(tables, world->directory);
        assert(fsx_tables_serve(tables, world->directory, world->fd, true));
        if (fstatat(world->fd, "f1", &status, 0) == 0) {
            assert(fsx_tables_leave_to_python(tables, status.st_ino, true));
            assert(fsx_tables_leave_to_python(tables, status.st_ino, false));
        }
        (void)fsx_tables_is_absent(tables, world->directory, "f2");
        (void)fsx_tables_is_passing(tables, world->directory);
        assert(fsx_tables_join(tables, world->direct.device, 99, -1, false) == 0);
        fsx_tables_leave(tables, world->direct.device, 99);
        fsx_tables_let_finish(tables);
    }
    return NULL;
}

/* Every answer that names or ends something was noted, once. */
static void
learn(struct world *world, size_t *created, size_t *released)
{
    struct fsx_fact *fact = fsx_journal_take(&world->direct.journal);

    while (fact != NULL) {
        struct fsx_fact *next = fact->next;
        if (fact->kind == FSX_CREATED) {
            assert(strncmp(fact->name, "f", 1) == 0 && fact->parent == world->directory);
            (void)close((int)(fact->handle & INT32_MAX));
            fsx_tables_leave(&world->direct.tables, world->direct.device, fact->ino);
            ++*created;
        }
        *released += fact->kind == FSX_RELEASED;
        free(fact);
        fact = next;
    }
}

/* Numbers that no file has here: only what the tables say counts. */
static void
looks_ahead_in_order(struct world *world)
{
    struct fsx_tables *tables = &world->direct.tables;

    fsx_tables_name(tables, 1003, world->directory, 1, "f1");
    fsx_tables_name(tables, 1004, world->directory, 1, "gone");
    (void)fsx_attributes_look_ahead(tables); /* what was expected before */

    fsx_attributes_expect_next(tables, 1000);
    fsx_attributes_expect_next(tables, 1002); /* not in order */
    assert(!fsx_attributes_look_ahead(tables));
    fsx_attributes_expect_next(tables, 1001);
    fsx_attributes_expect_next(tables, 1002);
    assert(fsx_attributes_look_ahead(tables));
    assert(!fsx_attributes_look_ahead(tables)); /* once */
    fsx_attributes_expect_next(tables, 1003);
    assert(!fsx_attributes_look_ahead(tables)); /* it has gone, which harms nobody */
    fsx_attributes_expect_next(tables, 1004);
    assert(!fsx_attributes_look_ahead(tables)); /* a name that nobody knows */
}

static void
test_many_at_once(void)
{
    static struct world world;
    char directory[] = "/tmp/fsx-direct-XXXXXX";
    size_t created = 0, released = 0;
    pthread_t askers[ASKERS], changer;
    struct stat status;
    int root;

    assert(mkdtemp(directory) != NULL);
    root = open("/tmp", O_RDONLY | O_CLOEXEC);
    world.fd = open(directory, O_RDONLY | O_CLOEXEC);
    assert(root >= 0 && world.fd >= 0 && fstat(world.fd, &status) == 0);
    world.directory = status.st_ino;
    world.direct.device = -1;
    assert(fsx_direct_open(&world.direct, open("/dev/null", O_WRONLY | O_CLOEXEC), "user.x") == 0);
    assert(fsx_tables_switch_on(&world.direct.tables, root, 1000000000, ".hidden") == 0);
    assert(fsx_tables_serve(&world.direct.tables, world.directory, world.fd, true));
    assert(pthread_create(&changer, NULL, change_all, &world) == 0);
    for (int i = 0; i < ASKERS; i++) {
        assert(pthread_create(&askers[i], NULL, ask_all, &world) == 0);
    }
    for (int i = 0; i < ASKERS; i++) {
        pthread_join(askers[i], NULL);
        learn(&world, &created, &released);
    }
    atomic_store(&world.is_done, true);
    pthread_join(changer, NULL);
    learn(&world, &created, &released);
    assert(created <= FILES && atomic_load(&world.created) == created);
    assert(released == ASKERS * ROUNDS && atomic_load(&world.released) == released);
    /* The scheduler may have let the askers come only while the directory was not served, or while
     * nobody learned. All is asked for twice now that nothing stands in the way: made, then met. */
    for (int i = 0; i < 2 * FILES; i++) {
        ask_about(&world, i % FILES);
    }
    learn(&world, &created, &released);
    assert(created == FILES && atomic_load(&world.created) == FILES);
    assert(released == ASKERS * ROUNDS + 2 * FILES && atomic_load(&world.released) == released);
    assert(atomic_load(&world.met) >= FILES);
    assert(world.direct.tables.opened.count == 0);
    looks_ahead_in_order(&world);
    for (int i = 0; i < FILES; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "f%d", i);
        assert(unlinkat(world.fd, name, 0) == 0);
    }
    (void)close(world.direct.device);
    fsx_direct_close(&world.direct);
    (void)close(world.fd);
    (void)close(root);
    assert(rmdir(directory) == 0);
}

int
main(void)
{
    test_map();
    test_many_at_once();
    puts("channel direct: ok");
    return 0;
}
