/* The relay under sanitizers: requests and answers of many threads at once, and an end in the
 * middle of it. */
#include "channel_relay.h"
#include "channel_wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUNDS 60
#define REQUESTS                                                                                   \
    100 /* their answers fit into a socket: /dev/fuse, for which it stands, is never full */

struct end {
    int fd;
    size_t answered;
};

struct request {
    struct fuse_in_header head;
    char body[sizeof(struct fuse_lseek_in)];
};

struct answer {
    struct fuse_out_header head;
    struct fsx_open_out opened;
};

/* libfuse: answers each request as an OPEN with backing id 3, until its end is closed. */
static void *
answer_all(void *argument)
{
    struct end *end = argument;
    struct request request;

    while (recv(end->fd, &request, sizeof request, 0) > 0) {
        struct answer answer = {.head = {.len = sizeof answer, .unique = request.head.unique},
                                .opened = {.fh = (uint64_t)3 << 32 | 7, .open_flags = 2}};
        if (send(end->fd, &answer, sizeof answer, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    return NULL;
}

/* The kernel's other half: what comes back. Every third request was an LSEEK on no descriptor. */
static void *
receive_all(void *argument)
{
    struct end *end = argument;
    struct answer answer;
    ssize_t got;

    while (end->answered < REQUESTS && (got = recv(end->fd, &answer, sizeof answer, 0)) > 0) {
        assert(answer.head.len == (uint32_t)got);
        if (answer.head.unique % 3 == 0) {
            assert(answer.head.error == -EBADF);
        }
        else {
            assert(answer.opened.backing_id == 3);
            assert(answer.opened.open_flags == FSX_OPEN_PASSTHROUGH);
        }
        end->answered++;
    }
    return NULL;
}

static void
play(bool to_the_end)
{
    struct fsx_channel channel = {.relay = -1};
    struct end kernel = {0}, libfuse = {0};
    pthread_t receiver, answerer;
    int pair[2];

    assert(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    kernel.fd = pair[0];
    assert(fsx_channel_open(&channel, pair[1], "user.stub", &libfuse.fd) == 0);
    assert(pthread_create(&answerer, NULL, answer_all, &libfuse) == 0);
    assert(pthread_create(&receiver, NULL, receive_all, &kernel) == 0);
    for (uint64_t i = 0; i < REQUESTS; i++) {
        struct request request = {.head = {.len = sizeof request, .unique = i}};
        struct fuse_lseek_in seek = {.fh = INT32_MAX};
        request.head.opcode = i % 3 == 0 ? FUSE_LSEEK : FUSE_OPEN;
        memcpy(request.body, &seek, sizeof seek);
        assert(send(kernel.fd, &request, sizeof request, MSG_NOSIGNAL) == sizeof request);
    }
    if (to_the_end) {
        pthread_join(receiver, NULL);
        assert(kernel.answered == REQUESTS);
        assert(atomic_load(&channel.pending.count) == 0);
    }
    fsx_channel_close(&channel);
    fsx_channel_free(&channel);
    pthread_join(answerer, NULL);
    if (!to_the_end) {
        pthread_join(receiver, NULL);
    }
    (void)close(kernel.fd);
    (void)close(libfuse.fd);
}

/* What waking up may take, as all programs of the machine together have it; -1: that can't be
 * asked. */
static int32_t
allowed_us(void)
{
    int32_t allowed = -1;
    int fd = open("/dev/cpu_dma_latency", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        assert(read(fd, &allowed, sizeof allowed) == sizeof allowed);
        (void)close(fd);
    }
    return allowed;
}

static void *
hold_and_let_go(void *argument)
{
    for (uint64_t now = 0; now < 3000; now++) {
        fsx_awake_hold(argument, now);
        fsx_awake_let_go(argument, now + (uint64_t)FSX_AWAKE_MS * 1000000);
    }
    return NULL;
}

static void
stay_awake(void)
{
    struct fsx_awake awake;
    pthread_t threads[3];

    fsx_awake_open(&awake);
    fsx_awake_hold(&awake, 0);
    assert(fsx_awake_sleep_ms(&awake) == -1); /* nobody wanted it */
    if (fsx_awake_want(&awake) == 0) {
        assert(fsx_awake_want(&awake) == 0);
        assert(fsx_awake_sleep_ms(&awake) == -1);
        fsx_awake_hold(&awake, 5);
        assert(allowed_us() == 0);
        assert(fsx_awake_sleep_ms(&awake) == FSX_AWAKE_MS);
        fsx_awake_let_go(&awake, 4 + (uint64_t)FSX_AWAKE_MS * 1000000);
        assert(allowed_us() == 0); /* a moment too early */
        fsx_awake_let_go(&awake, 5 + (uint64_t)FSX_AWAKE_MS * 1000000);
        assert(fsx_awake_sleep_ms(&awake) == -1);
        for (int i = 0; i < 3; i++) {
            assert(pthread_create(&threads[i], NULL, hold_and_let_go, &awake) == 0);
        }
        for (int i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
        }
        fsx_awake_let_go(&awake, UINT64_MAX);
        assert(fsx_awake_sleep_ms(&awake) == -1);
    }
    fsx_awake_close(&awake);
}

int
main(void)
{
    stay_awake();
    for (int i = 0; i < ROUNDS; i++) {
        play(i % 2 == 0);
    }
    puts("channel relay: ok");
    return 0;
}
