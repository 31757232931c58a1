// Quicksort with insertion sort for short ranges, of 1500 random words: loads, stores, and branches
// nobody can predict.

#include "bench.h"

enum { COUNT = 1500, SHORT = 12 };

static uint32_t items[COUNT];

void prepare(void) {
    uint64_t state = 1;
    for (int n = 0; n < COUNT; n++)
        items[n] = (uint32_t)(next_random(&state) >> 20);
}

static void insertion_sort(uint32_t *first, uint32_t *last) {
    for (uint32_t *place = first + 1; place <= last; place++) {
        uint32_t item = *place, *hole = place;
        for (; hole > first && hole[-1] > item; hole--)
            *hole = hole[-1];
        *hole = item;
    }
}

static void quicksort(uint32_t *first, uint32_t *last) {
    while (last - first > SHORT) {
        uint32_t *low = first, *high = last, pivot = first[(last - first) / 2];
        while (low <= high) {
            while (*low < pivot)
                low++;
            while (*high > pivot)
                high--;
            if (low <= high) {
                uint32_t item = *low;
                *low++ = *high;
                *high-- = item;
            }
        }
        if (high - first < last - low) {
            quicksort(first, high);
            first = low;
        } else {
            quicksort(low, last);
            last = high;
        }
    }
    insertion_sort(first, last);
}

uint64_t kernel(void) {
    quicksort(items, items + COUNT - 1);
    uint64_t hash = 0;
    for (int n = 0; n < COUNT; n++)
        hash = mix(hash, items[n]);
    return hash;
}

const uint64_t expected = 0x6f1af2edd442109u;
