// Strings: length, comparison, search and reversal of words, byte by byte.

#include "bench.h"

enum { WORDS = 220, LONGEST = 24, ROUNDS = 2 };

static char words[WORDS][LONGEST];
static char text[WORDS * LONGEST];

void prepare(void) {
    uint64_t state = 4;
    for (int n = 0; n < WORDS; n++) {
        int length = 2 + (int)(next_random(&state) >> 33) % (LONGEST - 4);
        if (length < 0)
            length = 2;
        for (int place = 0; place < length; place++)
            words[n][place] = (char)('a' + (next_random(&state) >> 35) % 7);
        words[n][length] = 0;
    }
}

static size_t length_of(const char *word) {
    size_t length = 0;
    while (word[length])
        length++;
    return length;
}

static int compare(const char *one, const char *other) {
    while (*one && *one == *other)
        one++, other++;
    return (unsigned char)*one - (unsigned char)*other;
}

static int occurrences(const char *where, const char *what) {
    int found = 0;
    for (; *where; where++) {
        const char *here = where, *part = what;
        while (*part && *here == *part)
            here++, part++;
        found += !*part;
    }
    return found;
}

static void reverse(char *word) {
    for (char *end = word + length_of(word); word < --end; word++) {
        char kept = *word;
        *word = *end;
        *end = kept;
    }
}

uint64_t kernel(void) {
    uint64_t hash = 0;
    for (int round = 0; round < ROUNDS; round++) {
        char *end = text;
        for (int n = 0; n < WORDS; n++) {
            for (const char *from = words[n]; *from; from++)
                *end++ = *from;
            *end = 0;
            hash = mix(hash, length_of(words[n]));
            if (n)
                hash = mix(hash, compare(words[n - 1], words[n]) < 0);
            reverse(words[n]);
        }
        hash = mix(hash, (uint64_t)occurrences(text, "abc"));
        hash = mix(hash, (uint64_t)occurrences(text, "ggg"));
    }
    return hash;
}

const uint64_t expected = 0x22293c89fbc4095cu;
