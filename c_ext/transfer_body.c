/* The bytes of a job: socket -> file and file -> socket, hashed as they pass. */
#include "transfer_wire.h"

#include "crc64nvme.h"
#include "transfer_headers.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_MS INT64_C(1000000)

static bool
is_cancelled(const struct fsx_wire *wire)
{
    return atomic_load_explicit(&wire->job->cancelled, memory_order_relaxed);
}

static void
forget_wake(struct fsx_wire *wire)
{
    uint64_t times;
    /* EAGAIN if nobody called: just as well */
    ssize_t ignored = read(wire->wake_fd, &times, sizeof times);
    (void)ignored;
}

/* Wait as the limit wants it. Blocking here is right: this thread has no other transfer, and a
 * socket that is not read slows its sender down. */
static void
throttle(struct fsx_wire *wire, struct fsx_limit *limit, int64_t bytes)
{
    uint64_t changes;
    int64_t until = fsx_limit_charge(limit, bytes, &changes);
    int64_t start = fsx_now_ns();
    int64_t now = start;

    while (now < until && !is_cancelled(wire) && fsx_limit_changes(limit) == changes) {
        struct pollfd woken = {.fd = wire->wake_fd, .events = POLLIN};
        int64_t ms = (until - now + NS_PER_MS - 1) / NS_PER_MS;
        if (poll(&woken, 1, ms > 60000 ? 60000 : (int)ms) > 0) {
            forget_wake(wire);
        }
        now = fsx_now_ns();
    }
    wire->window_ns += now - start; /* the low-speed limit is for the other side's slowness */
    atomic_fetch_add(&wire->shared->totals.throttled_ns, now - start);
}

static bool
hash(struct fsx_wire *wire, const void *data, size_t length)
{
    struct fsx_job *job = wire->job;

    if ((job->hashes & FSX_TRANSFER_XXH3) &&
        XXH3_128bits_update(wire->xxh3, data, length) != XXH_OK) {
        fsx_job_fail(job, FSX_TRANSFER_MEMORY, "no memory to hash");
        return false;
    }
    if (job->hashes & FSX_TRANSFER_CRC64NVME) {
        job->crc = fsx_crc64nvme_update(job->crc, data, length);
    }
    return true;
}

static bool
is_expected(const struct fsx_job *job)
{
    return !job->expects_crc || job->crc == job->expected_crc;
}

/* --- the answer's body --- */

static bool
flush(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;
    size_t done = 0;

    if (!hash(wire, wire->buffer, wire->buffered)) {
        return false;
    }
    while (done < wire->buffered) {
        ssize_t written = pwrite(job->fd, wire->buffer + done, wire->buffered - done,
                                 (off_t)(job->offset + job->moved));
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            job->error_number = errno;
            fsx_job_fail(job, FSX_TRANSFER_LOCAL_IO, "pwrite: %s", strerrordesc_np(errno));
            return false;
        }
        done += (size_t)written;
        job->moved += written;
    }
    wire->buffered = 0;
    return true;
}

static bool
store(struct fsx_wire *wire, const char *data, size_t length)
{
    struct fsx_job *job = wire->job;

    if ((int64_t)length > job->length - wire->received) {
        fsx_job_fail(job, FSX_TRANSFER_LONG, "an answer of more than %" PRId64 " bytes",
                     job->length);
        return false;
    }
    wire->received += (int64_t)length;
    while (length > 0) {
        size_t room = wire->shared->settings.buffer_bytes - wire->buffered;
        size_t piece = length < room ? length : room;
        memcpy(wire->buffer + wire->buffered, data, piece);
        wire->buffered += piece;
        data += piece;
        length -= piece;
        if (piece == room && !flush(wire)) {
            return false;
        }
    }
    return true;
}

static size_t
on_body(char *data, size_t unit, size_t count, void *context)
{
    struct fsx_wire *wire = context;
    struct fsx_job *job = wire->job;
    size_t length = unit * count;

    atomic_fetch_add_explicit(&wire->shared->totals.bytes_down, (int64_t)length,
                              memory_order_relaxed);
    wire->window_bytes += (int64_t)length;
    throttle(wire, &wire->shared->down, (int64_t)length);
    if (is_cancelled(wire) || !fsx_judge_answer(wire)) {
        return 0;
    }
    if (wire->is_accepted && job->is_sink) {
        return store(wire, data, length) ? length : 0;
    }
    if (!fsx_job_keep(job, data, length)) {
        fsx_job_fail(job, FSX_TRANSFER_LONG, "an answer of more than %zu bytes", job->keep_body);
        return 0;
    }
    return length;
}

static size_t
on_header(char *data, size_t unit, size_t count, void *context)
{
    struct fsx_wire *wire = context;

    wire->header_bytes += unit * count;
    if (unit * count >= 5 && memcmp(data, "HTTP/", 5) == 0) { /* a 100 has a head of its own */
        wire->is_head_whole = false;
    }
    else if (data[0] == '\r' || data[0] == '\n') {
        wire->is_head_whole = true;
    }
    if (wire->header_bytes > FSX_TRANSFER_MAX_HEADER_BYTES) {
        fsx_job_fail(wire->job, FSX_TRANSFER_OTHER, "more than %zu bytes of headers",
                     FSX_TRANSFER_MAX_HEADER_BYTES);
        return 0;
    }
    return is_cancelled(wire) ? 0 : unit * count;
}

/* --- the request's body --- */

/* The last bytes are in hand, and not sent yet. If the file changed since somebody hashed it, they
 * never are: no server publishes a body that is shorter than its Content-Length. */
static bool
may_send_last(struct fsx_job *job)
{
    if (!is_expected(job)) {
        fsx_job_fail(job, FSX_TRANSFER_LOCAL_CHANGED,
                     "the file's CRC-64/NVME is %016" PRIx64 ", not %016" PRIx64, job->crc,
                     job->expected_crc);
        return false;
    }
    return true;
}

/* Bytes of the range that libcurl sends next, 0 at its end, -1 if the job has failed. */
static int64_t
take_from_file(struct fsx_wire *wire, char *data, size_t room)
{
    struct fsx_job *job = wire->job;

    for (;;) {
        ssize_t got = pread(job->fd, data, room, (off_t)(job->offset + wire->sent));
        if (got > 0) {
            return hash(wire, data, (size_t)got) ? got : -1;
        }
        if (got == 0) { /* cut under us: the server must never see a body that looks complete */
            fsx_job_fail(job, FSX_TRANSFER_LOCAL_SHORT, "the file ends at %" PRId64,
                         job->offset + wire->sent);
            return -1;
        }
        if (errno != EINTR) {
            job->error_number = errno;
            fsx_job_fail(job, FSX_TRANSFER_LOCAL_IO, "pread: %s", strerrordesc_np(errno));
            return -1;
        }
    }
}

static size_t
on_send(char *data, size_t unit, size_t count, void *context)
{
    struct fsx_wire *wire = context;
    struct fsx_job *job = wire->job;
    int64_t left = job->length - wire->sent;
    size_t room = unit * count;
    int64_t got;

    if (is_cancelled(wire)) {
        return CURL_READFUNC_ABORT;
    }
    if (left == 0) {
        return 0;
    }
    if ((int64_t)room > left) {
        room = (size_t)left;
    }
    if (job->body != NULL) {
        memcpy(data, job->body + wire->sent, room);
        got = (int64_t)room;
    }
    else {
        got = take_from_file(wire, data, room);
        if (got < 0 || (got == left && !may_send_last(job))) {
            return CURL_READFUNC_ABORT;
        }
    }
    wire->sent += got;
    job->moved = wire->sent;
    atomic_fetch_add_explicit(&wire->shared->totals.bytes_up, got, memory_order_relaxed);
    wire->window_bytes += got;
    throttle(wire, &wire->shared->up, got);
    return is_cancelled(wire) ? CURL_READFUNC_ABORT : (size_t)got;
}

/* libcurl sends again if a kept connection turned out to be dead: from the start, hashes too. */
static int
on_rewind(void *context, curl_off_t offset, int origin)
{
    struct fsx_wire *wire = context;

    if (origin != SEEK_SET || offset != 0) {
        return CURL_SEEKFUNC_FAIL;
    }
    return fsx_body_begin(wire) ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
}

/* --- begin and end --- */

bool
fsx_body_begin(struct fsx_wire *wire)
{
    wire->buffered = 0;
    wire->received = 0;
    wire->sent = 0;
    wire->job->moved = 0;
    wire->job->crc = 0;
    if (XXH3_128bits_reset(wire->xxh3) != XXH_OK) {
        return false;
    }
    /* Nobody will ask for the bytes of an empty range, so this is the last moment. */
    return wire->job->is_sink || wire->job->length > 0 || may_send_last(wire->job);
}

bool
fsx_body_end(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;

    if (!wire->is_head_whole) { /* libcurl takes the end of the connection for the end of the head
                                 */
        fsx_job_fail(job, FSX_TRANSFER_SHORT, "the answer ends in its headers");
        return false;
    }
    if (!fsx_judge_answer(wire) || job->error != FSX_TRANSFER_OK) {
        return false;
    }
    if (job->is_sink) {
        if (wire->received != job->length) {
            fsx_job_fail(job, FSX_TRANSFER_SHORT, "%" PRId64 " bytes came, not %" PRId64,
                         wire->received, job->length);
            return false;
        }
        if (!flush(wire)) {
            return false;
        }
        if (!is_expected(job)) {
            fsx_job_fail(job, FSX_TRANSFER_DAMAGED,
                         "the CRC-64/NVME of what came is %016" PRIx64 ", not %016" PRIx64,
                         job->crc, job->expected_crc);
            return false;
        }
    }
    else if (wire->sent != job->length) { /* an answer before the end of the question */
        fsx_job_fail(job, FSX_TRANSFER_SHORT,
                     "answered after %" PRId64 " of %" PRId64 " bytes sent", wire->sent,
                     job->length);
        return false;
    }
    if (job->hashes & FSX_TRANSFER_XXH3) {
        XXH128_canonicalFromHash(&job->digest, XXH3_128bits_digest(wire->xxh3));
    }
    return true;
}

void
fsx_body_set_callbacks(struct fsx_wire *wire)
{
    curl_easy_setopt(wire->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(wire->easy, CURLOPT_WRITEDATA, wire);
    curl_easy_setopt(wire->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(wire->easy, CURLOPT_HEADERDATA, wire);
    curl_easy_setopt(wire->easy, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(wire->easy, CURLOPT_READDATA, wire);
    curl_easy_setopt(wire->easy, CURLOPT_SEEKFUNCTION, on_rewind);
    curl_easy_setopt(wire->easy, CURLOPT_SEEKDATA, wire);
}
