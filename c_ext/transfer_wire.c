#include "transfer_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define LONGEST_POLL_MS 60000
#define KEPT_CONNECTIONS 4L /* a thread: for as many endpoints */
#define SMALLEST_CURL_BUFFER 16384L
#define LARGEST_CURL_BUFFER 524288L /* CURL_MAX_READ_SIZE before 8.7, and enough */
#define METADATA "x-amz-meta-"
#define KEEPALIVE_IDLE_S 30L
#define KEEPALIVE_INTERVAL_S 15L

/* --- the options of one request --- */

static int
on_connected(void *context, char *their_ip, char *our_ip, int their_port, int our_port)
{
    struct fsx_wire *wire = context;

    (void)their_ip, (void)our_ip, (void)their_port, (void)our_port;
    wire->is_connected = true;
    wire->window_ns = fsx_now_ns();
    wire->window_bytes = 0;
    return CURL_PREREQFUNC_OK;
}

/* As libcurl does it, but not inherited by what the process executes. */
static curl_socket_t
on_open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)context, (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static void
set_connection(struct fsx_wire *wire)
{
    const struct fsx_transfer_settings *settings = &wire->shared->settings;
    CURL *easy = wire->easy;
    long size = (long)settings->buffer_bytes;

    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* leave a name server that hangs at once */
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, wire);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, settings->connect_timeout_ms);
    if (size < SMALLEST_CURL_BUFFER) {
        size = SMALLEST_CURL_BUFFER;
    }
    if (size > LARGEST_CURL_BUFFER) {
        size = LARGEST_CURL_BUFFER;
    }
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, size);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, size);
}

/* What could run out of memory is reported; the rest of the options are constants. */
static CURLcode
set_request(struct fsx_wire *wire)
{
    const struct fsx_job *job = wire->job;
    const char *ca_bundle = wire->shared->settings.ca_bundle;
    CURL *easy = wire->easy;
    bool has_body = job->body != NULL || (job->fd >= 0 && !job->is_sink);
    CURLcode code;

    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, wire->curl_message);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* "a/../b" is a key like any other */
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* none for the proxy */
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, job->headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)job->timeout_ms);
    if (strcmp(job->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    else if (has_body || strcmp(job->method, "PUT") == 0 || strcmp(job->method, "POST") == 0) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L); /* without a body: Content-Length: 0 */
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)(has_body ? job->length : 0));
    }
    code = curl_easy_setopt(easy, CURLOPT_URL, job->url);
    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, job->method);
    }
    if (code == CURLE_OK) { /* "" and not NULL: that would ask the environment */
        code = curl_easy_setopt(easy, CURLOPT_PROXY, job->proxy == NULL ? "" : job->proxy);
    }
    if (code == CURLE_OK) {
        code = curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    }
    if (code == CURLE_OK && ca_bundle != NULL) {
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, ca_bundle);
    }
    if (code == CURLE_OK && ca_bundle != NULL) {
        code = curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, ca_bundle);
    }
    return code;
}

/* --- what came of it --- */

static enum fsx_transfer_error
error_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return FSX_TRANSFER_OK;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
        return FSX_TRANSFER_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return FSX_TRANSFER_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
    case CURLE_SSL_INVALIDCERTSTATUS:
        return FSX_TRANSFER_TLS;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SSL_SHUTDOWN_FAILED:
        return FSX_TRANSFER_RESET;
    case CURLE_PARTIAL_FILE:
        return FSX_TRANSFER_SHORT;
    case CURLE_OUT_OF_MEMORY:
        return FSX_TRANSFER_MEMORY;
    default:
        return FSX_TRANSFER_OTHER;
    }
}

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static struct curl_header *
next_header(const struct fsx_wire *wire, struct curl_header *before)
{
    struct curl_header *header = before;

    do {
        header = curl_easy_nextheader(wire->easy, CURLH_HEADER, -1, header);
    } while (header != NULL && wire->job->drops_metadata &&
             strncasecmp(header->name, METADATA, sizeof METADATA - 1) == 0);
    return header;
}

/* Copy the final answer's headers. libcurl drops its own with the next request. */
static bool
keep_headers(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;
    struct curl_header *header = NULL;
    size_t size = 0;
    char *at;

    while ((header = next_header(wire, header)) != NULL) {
        size += strlen(header->name) + strlen(header->value) + 2;
        job->answer_header_count++;
    }
    if (size == 0) {
        return true;
    }
    job->answer_headers = at = malloc(size);
    if (at == NULL) {
        job->answer_header_count = 0;
        return false;
    }
    while ((header = next_header(wire, header)) != NULL) {
        size_t value_size = strlen(header->value) + 1;
        for (const char *c = header->name; *c != '\0'; c++) {
            *at++ = lower(*c);
        }
        *at++ = '\0';
        memcpy(at, header->value, value_size);
        at += value_size;
    }
    return true;
}

static void
conclude(struct fsx_wire *wire, CURLcode code)
{
    struct fsx_job *job = wire->job;

    if (code == CURLE_OK) {
        code = fsx_body_end(wire) ? CURLE_OK : CURLE_ABORTED_BY_CALLBACK;
    }
    if (code != CURLE_OK && job->error == FSX_TRANSFER_OK) {
        if (atomic_load(&job->cancelled)) { /* a callback, or the loop, gave up for that */
            fsx_job_fail(job, FSX_TRANSFER_CANCELLED, "cancelled");
        }
        else {
            if (wire->curl_message[0] == '\0') {
                fsx_job_fail(job, error_of(code), "%s", curl_easy_strerror(code));
            }
            else {
                fsx_job_fail(job, error_of(code), "%s", wire->curl_message);
            }
        }
    }
}

static void
keep_answer(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;
    long connects = 0;

    if (curl_easy_getinfo(wire->easy, CURLINFO_NUM_CONNECTS, &connects) == CURLE_OK) {
        atomic_fetch_add(&wire->shared->totals.connections, connects);
    }
    curl_easy_getinfo(wire->easy, CURLINFO_RESPONSE_CODE, &job->status);
    if (!keep_headers(wire)) {
        job->error = FSX_TRANSFER_OK; /* nothing that was said outranks this */
        fsx_job_fail(job, FSX_TRANSFER_MEMORY, "no memory for the answer's headers");
    }
}

/* Bringing data is no modification of the file. */
static void
give_times(struct fsx_job *job)
{
    if (job->gives_times && futimens(job->fd, job->times) < 0) {
        job->error_number = errno;
        fsx_job_fail(job, FSX_TRANSFER_LOCAL_IO, "futimens: %s", strerrordesc_np(errno));
    }
}

/* --- the run --- */

/* Milliseconds until the low-speed limit has to be looked at, 0 if it was broken. */
static int
low_speed_left_ms(struct fsx_wire *wire)
{
    const struct fsx_transfer_settings *settings = &wire->shared->settings;
    int64_t limit_s = wire->job->low_speed_s;
    int64_t now = fsx_now_ns();
    int64_t left_ns;

    if (limit_s < 0) {
        limit_s = settings->low_speed_s;
    }
    if (limit_s == 0 || !wire->is_connected) { /* connecting has its own limit */
        return LONGEST_POLL_MS;
    }
    left_ns = wire->window_ns + limit_s * NS_PER_S - now;
    if (left_ns <= 0) {
        if (wire->window_bytes < settings->low_speed_bytes * limit_s) {
            fsx_job_fail(wire->job, FSX_TRANSFER_TIMEOUT, "%" PRId64 " bytes in %" PRId64 " s",
                         wire->window_bytes, limit_s);
            return 0;
        }
        wire->window_ns = now;
        wire->window_bytes = 0;
        left_ns = limit_s * NS_PER_S;
    }
    return left_ns / NS_PER_MS >= LONGEST_POLL_MS ? LONGEST_POLL_MS
                                                  : (int)(left_ns / NS_PER_MS) + 1;
}

/* Until libcurl is done with the job, or we are. */
static CURLcode
perform(struct fsx_wire *wire)
{
    struct curl_waitfd waker = {.fd = wire->wake_fd, .events = CURL_WAIT_POLLIN};

    for (;;) {
        int running = 0, left_in_queue, poll_ms;
        uint64_t times;
        CURLMcode failed = curl_multi_perform(wire->multi, &running);
        if (failed == CURLM_OK && running == 0) {
            CURLMsg *message = curl_multi_info_read(wire->multi, &left_in_queue);
            return message == NULL ? CURLE_FAILED_INIT : message->data.result;
        }
        poll_ms = low_speed_left_ms(wire);
        if (poll_ms == 0 || atomic_load(&wire->job->cancelled)) {
            return CURLE_ABORTED_BY_CALLBACK;
        }
        if (failed == CURLM_OK) {
            failed = curl_multi_poll(wire->multi, &waker, 1, poll_ms, NULL);
        }
        if (failed != CURLM_OK) {
            return failed == CURLM_OUT_OF_MEMORY ? CURLE_OUT_OF_MEMORY : CURLE_FAILED_INIT;
        }
        if (waker.revents != 0 && read(wire->wake_fd, &times, sizeof times) < 0 &&
            errno != EAGAIN) {
            return CURLE_FAILED_INIT;
        }
        waker.revents = 0;
    }
}

void
fsx_wire_run(struct fsx_wire *wire, struct fsx_job *job)
{
    bool was_tried = false;
    CURLcode code;

    wire->job = job;
    wire->is_head_whole = wire->is_judged = wire->is_accepted = wire->is_connected = false;
    wire->header_bytes = 0;
    wire->curl_message[0] = '\0';
    curl_easy_reset(wire->easy);
    set_connection(wire);
    fsx_body_set_callbacks(wire);
    code = fsx_body_begin(wire) ? set_request(wire) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK) {
        if (curl_multi_add_handle(wire->multi, wire->easy) == CURLM_OK) {
            was_tried = true;
            code = perform(wire);
            curl_multi_remove_handle(wire->multi, wire->easy);
        }
        else {
            code = CURLE_OUT_OF_MEMORY;
        }
    }
    conclude(wire, code);
    if (was_tried) { /* else libcurl still has the headers of the job before */
        keep_answer(wire);
    }
    give_times(job);
    fsx_job_close_fd(job);
    atomic_fetch_add(&wire->shared->totals.jobs, 1);
    wire->job = NULL;
}

void
fsx_wire_wake(struct fsx_wire *wire)
{
    uint64_t one = 1;
    /* EAGAIN after 2^64 - 2 calls that nobody heard */
    ssize_t ignored = write(wire->wake_fd, &one, sizeof one);
    (void)ignored;
}

int
fsx_wire_open(struct fsx_wire *wire, struct fsx_transfer_shared *shared)
{
    memset(wire, 0, sizeof *wire);
    wire->shared = shared;
    wire->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    wire->multi = curl_multi_init();
    wire->easy = curl_easy_init();
    wire->xxh3 = XXH3_createState();
    wire->buffer = malloc(shared->settings.buffer_bytes);
    if (wire->wake_fd < 0 || wire->multi == NULL || wire->easy == NULL || wire->xxh3 == NULL ||
        wire->buffer == NULL) {
        return -1;
    }
    curl_multi_setopt(wire->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS);
    return 0;
}

void
fsx_wire_close(struct fsx_wire *wire)
{
    if (wire->shared == NULL) { /* never opened */
        return;
    }
    curl_easy_cleanup(wire->easy);
    if (wire->multi != NULL) {
        curl_multi_cleanup(wire->multi);
    }
    XXH3_freeState(wire->xxh3);
    free(wire->buffer);
    if (wire->wake_fd >= 0) {
        close(wire->wake_fd);
    }
}
