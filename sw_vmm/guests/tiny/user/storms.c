// Storms: one kind of kernel work, as often as possible.

#include "user.h"

enum { SYSTEM_CALLS = 2000, FORKS = 16, WRITTEN_PAGES = 4 };
enum { FAULT_ROUNDS = 4, FAULT_PAGES = 48, MAPS = 120, MAP_PAGES = 4 };

static uint8_t inherited[WRITTEN_PAGES][PAGE_SIZE];

uint64_t storm_calls(void) {
    uint64_t digest = DIGEST_START;
    int64_t own = identity();
    for (int count = 0; count < SYSTEM_CALLS; count++)
        digest = add_to_digest(digest, (uint64_t)(identity() - own));
    return digest;
}

// Each child finds what the parent has written, writes over it, and must not be heard of again.
uint64_t storm_forks(void) {
    uint64_t digest = DIGEST_START;
    for (int count = 0; count < FORKS; count++) {
        for (int page = 0; page < WRITTEN_PAGES; page++)
            inherited[page][count] = (uint8_t)(count + page);
        int64_t child = fork();
        if (child < 0)
            return 0;
        if (child == 0) {
            int sum = 0;
            for (int page = 0; page < WRITTEN_PAGES; page++) {
                sum += inherited[page][count];
                inherited[page][count] = 0xff;
            }
            exit(sum & 0x7f);
        }
        digest = add_to_digest(digest, (uint64_t)wait_for_code());
        for (int page = 0; page < WRITTEN_PAGES; page++)
            digest = add_to_digest(digest, inherited[page][count]);
    }
    return digest;
}

// New pages are zero; half of them are read before they are written.
uint64_t storm_faults(void) {
    uint64_t digest = DIGEST_START;
    for (int round = 0; round < FAULT_ROUNDS; round++) {
        uint64_t *words = map(FAULT_PAGES * PAGE_SIZE, MAP_PRIVATE);
        if (!words)
            return 0;
        for (int page = 0; page < FAULT_PAGES; page++) {
            uint64_t *word = words + (uint64_t)page * PAGE_SIZE / sizeof *words;
            if (page % 2)
                digest = add_to_digest(digest, *word);
            *word = (uint64_t)(round << 8 | page);
            digest = add_to_digest(digest, word[1] + *word);
        }
        if (unmap(words, FAULT_PAGES * PAGE_SIZE) < 0)
            return 0;
    }
    return digest;
}

uint64_t storm_maps(void) {
    uint64_t digest = DIGEST_START;
    for (int count = 0; count < MAPS; count++) {
        volatile uint64_t *first = map(MAP_PAGES * PAGE_SIZE, MAP_PRIVATE);
        volatile uint64_t *second = map(PAGE_SIZE, MAP_PRIVATE);
        if (!first || !second)
            return 0;
        *second = (uint64_t)count;
        digest = add_to_digest(digest, (uintptr_t)first ^ (uintptr_t)second ^ *second);
        if (unmap((void *)second, PAGE_SIZE) < 0 || unmap((void *)first, MAP_PAGES * PAGE_SIZE) < 0)
            return 0;
    }
    return digest;
}
