/* fault.h - the library on an allocator that counts blocks and can refuse one. Include it in the place of the header. */
#ifndef ORL_TEST_FAULT_H
#define ORL_TEST_FAULT_H
#include <stdlib.h>

/* The fault_at-th request (1, 2, …; 0: none) fails; fault_live blocks are held. */
static size_t fault_at, fault_count, fault_live;

static void *fault_malloc(size_t n) {
    void *p;
    if (++fault_count == fault_at) return NULL;
    p = malloc(n);
    if (p) fault_live++;
    return p;
}
static void fault_free(void *p) {
    if (p) fault_live--;
    free(p);
}

#define ORL_MALLOC(n) fault_malloc(n)
#define ORL_FREE(p) fault_free(p)
#define OFFLINE_RLHF_IMPLEMENTATION
#include "../offline_rlhf.h"
#endif
