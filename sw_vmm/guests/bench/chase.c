// A pointer chase over 128 KiB, far beyond the data cache: one line after the other, in an order
// no stride describes.

#include "bench.h"

enum { NODES = 2048, STEPS = 10000 };

struct node {
    struct node *next;
    uint64_t value;
    uint64_t rest[6];
};

static struct node nodes[NODES] __attribute__((aligned(64)));

void prepare(void) {
    // A full cycle: a linear congruential generator of period NODES.
    uint32_t place = 0;
    for (int n = 0; n < NODES; n++) {
        uint32_t next = (place * 1597 + 1051) % NODES;
        nodes[place].next = &nodes[next];
        nodes[place].value = place;
        place = next;
    }
}

uint64_t kernel(void) {
    uint64_t sum = 0;
    const struct node *node = nodes;
    for (int step = 0; step < STEPS; step++) {
        sum += node->value ^ (uint64_t)step;
        node = node->next;
    }
    return sum;
}

const uint64_t expected = 0x2f94fa0u;
