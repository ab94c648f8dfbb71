#include "channel_journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int
fsx_journal_open(struct fsx_journal *journal)
{
    journal->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (journal->event_fd < 0) {
        return errno;
    }
    pthread_mutex_init(&journal->mutex, NULL);
    return 0;
}

void
fsx_journal_close(struct fsx_journal *journal)
{
    struct fsx_fact *fact;

    if (journal->event_fd < 0) {
        return;
    }
    for (fact = fsx_journal_take(journal); fact != NULL;) {
        struct fsx_fact *next = fact->next;
        free(fact);
        fact = next;
    }
    (void)close(journal->event_fd);
    journal->event_fd = -1;
    pthread_mutex_destroy(&journal->mutex);
}

struct fsx_fact *
fsx_fact_new(enum fsx_fact_kind kind, const char *name)
{
    size_t length = name == NULL ? 0 : strlen(name);
    struct fsx_fact *fact = malloc(sizeof *fact + length + 1);

    if (fact != NULL) {
        *fact = (struct fsx_fact){.kind = kind};
        memcpy(fact->name, name == NULL ? "" : name, length + 1);
    }
    return fact;
}

void
fsx_journal_note(struct fsx_journal *journal, struct fsx_fact *fact)
{
    bool was_empty;

    pthread_mutex_lock(&journal->mutex);
    was_empty = journal->first == NULL;
    if (was_empty) {
        journal->first = fact;
    }
    else {
        journal->last->next = fact;
    }
    journal->last = fact;
    atomic_fetch_add(&journal->count, 1);
    if (was_empty) {
        uint64_t one = 1;
        ssize_t ignored = write(journal->event_fd, &one, sizeof one);
        (void)ignored; /* never full: it is read whenever the facts are taken */
    }
    pthread_mutex_unlock(&journal->mutex);
}

struct fsx_fact *
fsx_journal_take(struct fsx_journal *journal)
{
    struct fsx_fact *taken;

    if (atomic_load(&journal->count) == 0) {
        return NULL;
    }
    pthread_mutex_lock(&journal->mutex);
    taken = journal->first;
    journal->first = journal->last = NULL;
    atomic_store(&journal->count, 0);
    if (taken != NULL) {
        uint64_t count;
        ssize_t ignored = read(journal->event_fd, &count, sizeof count);
        (void)ignored;
    }
    pthread_mutex_unlock(&journal->mutex);
    return taken;
}

void
fsx_journal_put_back(struct fsx_journal *journal, struct fsx_fact *facts)
{
    struct fsx_fact *last = facts;
    size_t count = 1;
    uint64_t one = 1;
    ssize_t ignored;

    while (last->next != NULL) {
        last = last->next;
        count++;
    }
    pthread_mutex_lock(&journal->mutex);
    last->next = journal->first;
    journal->first = facts;
    if (journal->last == NULL) {
        journal->last = last;
    }
    atomic_fetch_add(&journal->count, count);
    ignored = write(journal->event_fd, &one, sizeof one);
    (void)ignored;
    pthread_mutex_unlock(&journal->mutex);
}
