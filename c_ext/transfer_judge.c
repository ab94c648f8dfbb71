/* Whether an answer is the one that was asked for, told from its head: before a byte is written. */
#include "transfer_wire.h"

#include "transfer_headers.h"

#include <inttypes.h>

/* Is this the range that was asked for? */
static bool
is_asked_range(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;
    struct curl_header *header;
    struct fsx_content_range range;

    if (curl_easy_header(wire->easy, "Content-Range", 0, CURLH_HEADER, -1, &header) != CURLHE_OK) {
        fsx_job_fail(job, FSX_TRANSFER_RANGE, "a 206 without Content-Range");
        return false;
    }
    if (header->amount != 1 || !fsx_headers_parse_content_range(header->value, &range)) {
        fsx_job_fail(job, FSX_TRANSFER_RANGE, "not a Content-Range: %.100s", header->value);
        return false;
    }
    if (range.first != job->object_offset || range.last - range.first != job->length - 1) {
        fsx_job_fail(job, FSX_TRANSFER_RANGE,
                     "bytes %" PRId64 "-%" PRId64 " came, not %" PRId64 "-%" PRId64, range.first,
                     range.last, job->object_offset, job->object_offset + job->length - 1);
        return false;
    }
    return true;
}

static bool
is_asked_length(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;
    curl_off_t length = -1;

    curl_easy_getinfo(wire->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (length >= 0 && length != job->length) { /* -1: chunked, or until the connection ends */
        fsx_job_fail(job, length < job->length ? FSX_TRANSFER_SHORT : FSX_TRANSFER_LONG,
                     "an answer of %" PRId64 " bytes, not %" PRId64, (int64_t)length, job->length);
        return false;
    }
    return true;
}

bool
fsx_judge_answer(struct fsx_wire *wire)
{
    struct fsx_job *job = wire->job;

    if (wire->is_judged) {
        return true;
    }
    wire->is_judged = true;
    curl_easy_getinfo(wire->easy, CURLINFO_RESPONSE_CODE, &job->status);
    if (job->expect_status == 0 ? job->status < 200 || job->status > 299
                                : job->status != job->expect_status) {
        if (job->is_sink && job->expect_status == 206 && job->status == 200) {
            /* The whole object: it may be large, and none of it goes to the range's place. */
            fsx_job_fail(job, FSX_TRANSFER_RANGE, "the whole object came, not a range");
            return false;
        }
        fsx_job_fail(job, FSX_TRANSFER_HTTP, "status %ld", job->status);
        return true;
    }
    if (job->is_sink) {
        if (job->object_offset >= 0 && !is_asked_range(wire)) {
            return false;
        }
        if (!is_asked_length(wire)) {
            return false;
        }
    }
    wire->is_accepted = true;
    return true;
}
