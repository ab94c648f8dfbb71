/* What libcurl can do at best: ranges of objects into files, by threads, and nothing else (no hash,
 * no check, no limit). Reads "URL<tab>offset<tab>length<tab>file" lines from standard input, and
 * prints the seconds and the processor seconds that it took.
 *
 *     cc -O2 -pthread -o bare_curl bare_curl.c -lcurl && ./bare_curl THREADS <plan
 */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_THREADS 64
#define BUFFER_BYTES (256L * 1024) /* as the transfer pool's */

struct range {
    char *url;
    long long offset;
    long long length;
    char *file;
    int fd;
    long long moved;
};

static struct range *ranges;
static size_t range_count;
static atomic_size_t next_range;

static void
die(const char *what, const char *why)
{
    fprintf(stderr, "bare_curl: %s: %s\n", what, why);
    exit(1);
}

static double
seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static size_t
write_body(char *data, size_t size, size_t count, void *context)
{
    struct range *range = context;
    size_t left = size * count;
    while (left > 0) {
        ssize_t done = pwrite(range->fd, data, left, (off_t)(range->offset + range->moved));
        if (done < 0) {
            die(range->file, strerror(errno));
        }
        range->moved += done;
        data += done;
        left -= (size_t)done;
    }
    return size * count;
}

static void *
work(void *unused)
{
    CURL *curl = curl_easy_init();
    if (curl == NULL) {
        die("libcurl", "no handle");
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, write_body);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    size_t mine;
    while ((mine = atomic_fetch_add(&next_range, 1)) < range_count) {
        struct range *range = &ranges[mine];
        char asked[64];
        snprintf(asked, sizeof asked, "%lld-%lld", range->offset,
                 range->offset + range->length - 1);
        range->fd = open(range->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (range->fd < 0) {
            die(range->file, strerror(errno));
        }
        curl_easy_setopt(curl, CURLOPT_URL, range->url);
        curl_easy_setopt(curl, CURLOPT_RANGE, asked);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, range);
        CURLcode code = curl_easy_perform(curl);
        if (code != CURLE_OK || range->moved != range->length) {
            die(range->file, code != CURLE_OK ? curl_easy_strerror(code) : "another length");
        }
        close(range->fd);
    }
    curl_easy_cleanup(curl);
    return unused;
}

static void
read_plan(void)
{
    char *line = NULL;
    size_t room = 0, capacity = 0;
    while (getline(&line, &room, stdin) > 0) {
        if (range_count == capacity) {
            capacity = capacity ? 2 * capacity : 256;
            ranges = realloc(ranges, capacity * sizeof *ranges);
            if (ranges == NULL) {
                die("the plan", "no memory");
            }
        }
        struct range range = {0};
        if (sscanf(line, "%m[^\t]\t%lld\t%lld\t%m[^\n]", &range.url, &range.offset, &range.length,
                   &range.file) != 4) {
            die("the plan", line);
        }
        ranges[range_count++] = range;
    }
    free(line);
}

int
main(int argc, char **argv)
{
    int threads = argc == 2 ? atoi(argv[1]) : 0;
    if (threads < 1 || threads > MAX_THREADS) {
        die("usage", "bare_curl THREADS <plan");
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    read_plan();
    pthread_t ids[MAX_THREADS];
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, work, NULL) != 0) {
            die("pthread_create", "failed");
        }
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
    printf("{\"seconds\": %f, \"cpu_s\": %f}\n", seconds(CLOCK_MONOTONIC) - start,
           seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    return 0;
}
