#include "transfer_job.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fsx_job *
fsx_job_new(const char *method, const char *url, const char *proxy)
{
    struct fsx_job *job = calloc(1, sizeof *job);
    if (job == NULL) {
        return NULL;
    }
    job->fd = -1;
    job->object_offset = -1;
    job->low_speed_s = -1;
    job->method = strdup(method);
    job->url = strdup(url);
    job->proxy = proxy == NULL ? NULL : strdup(proxy);
    /* Not sent: what nobody signed or asked for, and a round trip before each large body. */
    job->headers = curl_slist_append(NULL, "Accept:");
    if (job->headers == NULL || curl_slist_append(job->headers, "Expect:") == NULL ||
        job->method == NULL || job->url == NULL || (proxy != NULL && job->proxy == NULL)) {
        fsx_job_free(job);
        return NULL;
    }
    return job;
}

bool
fsx_job_add_header(struct fsx_job *job, const char *header)
{
    const char *value = strchr(header, ':') + 1;
    struct curl_slist *longer;

    job->header_count++;
    job->header_bytes += strlen(header) + 2;
    if (value[strspn(value, " \t")] == '\0') {
        /* To libcurl "Name:" means "not this header"; one without a value is "Name;". */
        char *bare = strdup(header);
        if (bare == NULL) {
            return false;
        }
        bare[value - 1 - header] = ';';
        bare[value - header] = '\0';
        longer = curl_slist_append(job->headers, bare);
        free(bare);
    }
    else {
        longer = curl_slist_append(job->headers, header);
    }
    if (longer == NULL) {
        return false;
    }
    job->headers = longer;
    return true;
}

void
fsx_job_close_fd(struct fsx_job *job)
{
    if (job->fd >= 0) {
        close(job->fd);
        job->fd = -1;
    }
}

void
fsx_job_free(struct fsx_job *job)
{
    if (job == NULL) {
        return;
    }
    fsx_job_close_fd(job);
    curl_slist_free_all(job->headers);
    free(job->method);
    free(job->url);
    free(job->proxy);
    free(job->body);
    free(job->answer_headers);
    free(job->kept);
    free(job);
}

void
fsx_job_fail(struct fsx_job *job, enum fsx_transfer_error error, const char *format, ...)
{
    va_list arguments;

    if (job->error != FSX_TRANSFER_OK) {
        return;
    }
    job->error = error;
    va_start(arguments, format);
    (void)vsnprintf(job->message, sizeof job->message, format, arguments);
    va_end(arguments);
}

bool
fsx_job_keep(struct fsx_job *job, const void *data, size_t length)
{
    size_t fitting = job->keep_body - job->kept_length;
    bool fits = length <= fitting;

    if (fits) {
        fitting = length;
    }
    if (job->kept_room - job->kept_length < fitting) {
        size_t room = 2 * (job->kept_length + fitting);
        unsigned char *larger;
        if (room > job->keep_body) {
            room = job->keep_body;
        }
        larger = realloc(job->kept, room);
        if (larger == NULL) {
            fsx_job_fail(job, FSX_TRANSFER_MEMORY, "no memory for the answer's body");
            return false;
        }
        job->kept = larger;
        job->kept_room = room;
    }
    if (fitting > 0) {
        memcpy(job->kept + job->kept_length, data, fitting);
        job->kept_length += fitting;
    }
    return fits;
}
