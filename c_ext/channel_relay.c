#include "channel_relay.h"

#include "channel_requests.h"
#include "channel_screen.h"
#include "channel_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUEUED_BYTES (1 << 20) /* in the socket: a flood of small FORGETs, a few large messages */

static void
pause_ms(long ms)
{
    struct timespec time = {.tv_nsec = ms * 1000000};
    (void)nanosleep(&time, NULL);
}

static void
signal_event(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof one);
    (void)ignored; /* EAGAIN: it is readable anyway */
}

/* --- kernel to libfuse --- */

/* False if libfuse's end is closed. */
static bool
pass_request(struct fsx_channel *channel, const char *buffer, size_t length)
{
    /* first: who has got the answer may ask how many there were */
    atomic_fetch_add_explicit(&channel->passed, 1, memory_order_relaxed);
    while (send(channel->relay, buffer, length, MSG_NOSIGNAL) < 0) {
        if (errno == ENOBUFS || errno == ENOMEM) {
            pause_ms(1);
        }
        else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* Requests whose answer is completed on its way. */
static bool
is_awaited(uint32_t opcode)
{
    return opcode == FUSE_INIT || opcode == FUSE_OPEN || opcode == FUSE_CREATE;
}

static bool
handle_request(struct fsx_channel *channel, const char *buffer, size_t length, char *room)
{
    struct fuse_in_header head;
    int error = 0;

    memcpy(&head, buffer, sizeof head);
    if (fsx_screen_is_our_own(channel->process, &head, buffer, length)) {
        atomic_fetch_add(&channel->refused, 1);
        error = EDEADLK;
    }
    else if (fsx_direct_answer(&channel->direct, buffer, length, room)) {
        return true;
    }
    else if (head.opcode == FUSE_IOCTL) { /* open(3) of many languages asks whether it is a tty */
        error = ENOSYS;
    }
    else if ((error = fsx_screen_security(head.opcode, buffer, length)) != 0) {
        /* told below */
    }
    else if (fsx_answerer_takes(head.opcode)) {
        error = fsx_answerer_ask(&channel->answerer, buffer, length);
    }
    else {
        if (head.opcode == FUSE_INIT) {
            atomic_store(&channel->offered, fsx_init_offered(buffer, length));
        }
        if (head.opcode == FUSE_INTERRUPT &&
            fsx_screen_gives_up(&channel->pending, channel->device, buffer, length)) {
            return true;
        }
        if (is_awaited(head.opcode) &&
            !fsx_pending_add(&channel->pending, head.unique, head.opcode, head.pid)) {
            error = ENOMEM;
        }
        else {
            return pass_request(channel, buffer, length);
        }
    }
    if (error != 0) {
        fsx_answer_error(channel->device, head.unique, error);
    }
    return true;
}

static void *
relay_down(void *argument)
{
    struct fsx_channel *channel = argument;
    char *buffer = malloc(2 * FSX_CHANNEL_MESSAGE); /* the request, and room for an answer */
    struct fsx_reader reader = {.waiting = fsx_requests_wait(channel)};
    size_t length;

    while (buffer != NULL && reader.waiting >= 0 &&
           (length = fsx_requests_next(channel, &reader, buffer)) != 0 &&
           handle_request(channel, buffer, length, buffer + FSX_CHANNEL_MESSAGE)) {
    }
    free(buffer);
    if (reader.waiting >= 0) {
        (void)close(reader.waiting);
    }
    signal_event(channel->event_fd);
    return NULL;
}

/* --- libfuse to kernel --- */

/* The kernel never hears of that handle, so it will not release it. */
static void
release_unwanted(struct fsx_channel *channel, const char *answer, size_t length)
{
    struct fsx_fact *fact = fsx_fact_new(FSX_RELEASED, NULL);
    struct fsx_open_out opened;

    if (fact == NULL || length < sizeof opened) {
        free(fact);
        return;
    }
    memcpy(&opened, answer, sizeof opened);
    fact->handle = opened.fh;
    fsx_journal_note(&channel->direct.journal, fact);
}

/* The new length; 0: nobody wants it any more. */
static size_t
handle_answer(struct fsx_channel *channel, char *buffer, size_t length, size_t room)
{
    struct fuse_out_header head;
    bool is_given_up;
    uint32_t opcode;

    if (length < sizeof head) {
        return length;
    }
    memcpy(&head, buffer, sizeof head);
    opcode = fsx_pending_take(&channel->pending, head.unique, &is_given_up);
    if (opcode == FUSE_INIT) {
        return fsx_init_rewrite(buffer, length, room, atomic_load(&channel->offered));
    }
    if (is_given_up) {
        if (head.error == 0) {
            release_unwanted(channel, buffer + sizeof head, length - sizeof head);
        }
        return 0;
    }
    if (opcode == FUSE_OPEN || opcode == FUSE_CREATE) {
        fsx_open_rewrite(buffer, length, opcode);
    }
    return length;
}

static void *
relay_up(void *argument)
{
    struct fsx_channel *channel = argument;
    size_t room = 2 * FSX_CHANNEL_MESSAGE; /* an answer may be as long as an attribute and more */
    char *buffer = malloc(room);

    while (buffer != NULL && !atomic_load(&channel->is_stopping)) {
        ssize_t got = recv(channel->relay, buffer, room, 0);
        if (got > 0) {
            size_t length = handle_answer(channel, buffer, (size_t)got, room);
            while (length != 0 && write(channel->device, buffer, length) < 0 && errno == EINTR) {
            } /* ENOENT: nobody waits for it any more */
        }
        else if (got == 0 || errno != EINTR) {
            break; /* shut down by fsx_channel_close, or libfuse is gone */
        }
    }
    free(buffer);
    signal_event(channel->event_fd); /* without answers there is no use in requests */
    return NULL;
}

/* --- the channel --- */

static int
start(struct fsx_channel *channel)
{
    sigset_t all, before;
    int error;

    sigfillset(&all); /* signals are for Python's main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = fsx_direct_open(&channel->direct, channel->device, channel->stub_xattr);
    if (error == 0) {
        error = fsx_answerer_open(&channel->answerer, channel->device, channel->stub_xattr,
                                  &channel->direct.counts);
    }
    if (error == 0) {
        error = pthread_create(&channel->up, NULL, relay_up, channel);
        channel->is_up_started = error == 0;
    }
    if (error == 0) {
        (void)pthread_setname_np(channel->up, "fsx-answers");
    }
    while (error == 0 && channel->down_started < FSX_REQUEST_THREADS) {
        pthread_t *thread = &channel->down[channel->down_started];
        error = pthread_create(thread, NULL, relay_down, channel);
        if (error == 0) {
            (void)pthread_setname_np(*thread, "fsx-requests");
            channel->down_started++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int
fsx_channel_open(struct fsx_channel *channel, int device, const char *stub_xattr, int *session)
{
    int pair[2], error = 0, size = QUEUED_BYTES;

    channel->device = channel->relay = channel->event_fd = channel->stop_fd = -1;
    channel->direct.journal.event_fd = -1;
    channel->process = getpid();
    fsx_pending_open(&channel->pending);
    fsx_awake_open(&channel->awake);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        error = errno;
        fsx_pending_close(&channel->pending);
        fsx_awake_close(&channel->awake);
        return error;
    }
    channel->relay = pair[0];
    channel->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->stub_xattr = strdup(stub_xattr);
    if (channel->event_fd < 0 || channel->stop_fd < 0 || channel->stub_xattr == NULL) {
        error = errno;
    }
    for (int i = 0; error == 0 && i < 2; i++) {
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0 &&
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size) < 0) {
            error = errno;
        }
    }
    if (error == 0 && fcntl(device, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
        error = errno;
    }
    if (error == 0) {
        channel->device = device;
        error = start(channel);
    }
    if (error != 0) {
        channel->device = -1; /* stays the caller's */
        fsx_channel_free(channel);
        (void)close(pair[1]);
        return error;
    }
    *session = pair[1];
    return 0;
}

static void
close_fd(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

void
fsx_channel_close(struct fsx_channel *channel)
{
    if (channel->relay < 0) {
        return;
    }
    atomic_store(&channel->is_stopping, true);
    if (channel->stop_fd >= 0) {
        signal_event(channel->stop_fd);
    }
    (void)shutdown(channel->relay, SHUT_RDWR);
    while (channel->down_started > 0) {
        pthread_join(channel->down[--channel->down_started], NULL);
    }
    if (channel->is_up_started) {
        pthread_join(channel->up, NULL);
    }
    fsx_answerer_close(&channel->answerer);
    close_fd(&channel->device); /* the last descriptor: the kernel ends the connection */
    close_fd(&channel->relay);
    close_fd(&channel->stop_fd);
    close_fd(&channel->event_fd);
    fsx_pending_close(&channel->pending);
    fsx_awake_close(&channel->awake);
}

void
fsx_channel_free(struct fsx_channel *channel)
{
    fsx_channel_close(channel);
    fsx_direct_close(&channel->direct);
    free(channel->stub_xattr);
    channel->stub_xattr = NULL;
}
