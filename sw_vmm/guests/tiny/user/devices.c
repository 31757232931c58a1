// The disk, and the second console. A machine may be without them.

#include "user.h"

enum { SECTORS = 12, COPIES = 32, LINES = 6, WORDS = SECTOR_SIZE / 8 };

// Every sector is read, changed, written further on, and read again from there.
uint64_t use_disk(void) {
    static uint64_t sector[WORDS], copy[WORDS];
    uint64_t digest = DIGEST_START;
    for (uint64_t number = 0; number < SECTORS; number++) {
        if (transfer(DISK_READ, number, sector) < 0)
            return number ? 0 : NO_DEVICE;
        for (int word = 0; word < WORDS; word++)
            sector[word] ^= digest = add_to_digest(digest, sector[word]);
        if (transfer(DISK_WRITE, COPIES + number, sector) < 0 ||
            transfer(DISK_READ, COPIES + number, copy) < 0)
            return 0;
        for (int word = 0; word < WORDS; word++)
            if (copy[word] != sector[word])
                return 0;
    }
    return digest;
}

uint64_t use_terminal(void) {
    uint64_t digest = DIGEST_START;
    char line[] = "terminal line 0\n";
    for (char number = 0; number < LINES; number++) {
        line[sizeof line - 3] = (char)('0' + number);
        if (write(TERMINAL_FILE, line, sizeof line - 1) < 0)
            return number ? 0 : NO_DEVICE;
        digest = add_to_digest(digest, (uint64_t)line[sizeof line - 3]);
    }
    return digest;
}
