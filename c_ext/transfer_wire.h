/* One thread's libcurl: carries out one job at a time, and keeps connections for the next ones. */
#ifndef FSX_TRANSFER_WIRE_H
#define FSX_TRANSFER_WIRE_H

#include "transfer_job.h"
#include "transfer_limit.h"

#include <curl/curl.h>

struct fsx_transfer_settings {
    char *ca_bundle; /* NULL: libcurl's own */
    long connect_timeout_ms;
    int64_t low_speed_bytes; /* a second, on average over low_speed_s */
    int64_t low_speed_s;     /* 0: however slow */
    size_t buffer_bytes;
};

struct fsx_transfer_totals {
    _Atomic int64_t bytes_down; /* of bodies, error texts too */
    _Atomic int64_t bytes_up;
    _Atomic int64_t connections; /* opened */
    _Atomic int64_t throttled_ns;
    _Atomic int64_t jobs;
};

/* What all threads of a pool have in common. */
struct fsx_transfer_shared {
    struct fsx_transfer_settings settings;
    struct fsx_transfer_totals totals;
    struct fsx_limit down, up;
};

struct fsx_wire {
    struct fsx_transfer_shared *shared;
    CURLM *multi;
    CURL *easy;
    int wake_fd;
    XXH3_state_t *xxh3;
    unsigned char *buffer; /* what is to be written next: libcurl hands out 16 KiB at most */
    size_t buffered;

    /* of the job under way */
    struct fsx_job *job;
    bool is_head_whole;
    bool is_judged;   /* status and headers were looked at */
    bool is_accepted; /* and are what was asked for */
    bool is_connected;
    int64_t received; /* of an accepted body */
    int64_t sent;
    size_t header_bytes;
    char curl_message[CURL_ERROR_SIZE];
    int64_t window_ns; /* of the low-speed limit: since when, and how much */
    int64_t window_bytes;
};

/* 0, or -1 without memory or descriptors; close in either case. */
int fsx_wire_open(struct fsx_wire *wire, struct fsx_transfer_shared *shared);
void fsx_wire_close(struct fsx_wire *wire);

/* Carry out a job: its error is set when this returns. Blocks; fsx_wire_wake makes it look whether
 * the job was cancelled. */
void fsx_wire_run(struct fsx_wire *wire, struct fsx_job *job);
void fsx_wire_wake(struct fsx_wire *wire); /* any thread */

/* transfer_body.c: the callbacks that move bytes. False: the job has failed, or without memory. */
void fsx_body_set_callbacks(struct fsx_wire *wire);
bool fsx_body_begin(struct fsx_wire *wire);
bool fsx_body_end(struct fsx_wire *wire);

/* transfer_judge.c: look at status and headers, once. False: the job has failed, and not even the
 * error's text is worth reading. */
bool fsx_judge_answer(struct fsx_wire *wire);

#endif
