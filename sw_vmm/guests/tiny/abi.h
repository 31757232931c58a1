// What user programs and the kernel agree on.
#pragma once

#include <stdint.h>

// Number in a7, arguments in a0 to a2, the result in a0; a negative result is a failure.
enum system_call_number {
    CALL_EXIT,      // (code)
    CALL_FORK,      // () -> id of the child, 0 in the child
    CALL_WAIT,      // () -> id << 8 | code of a child that has ended; waits for one
    CALL_IDENTITY,  // () -> id
    CALL_SLEEP,     // (ticks of the time CSR)
    CALL_PIPE,      // (int files[2]): one to read from, one to write to
    CALL_READ,      // (file, buffer, length) -> bytes; 0 at the end
    CALL_WRITE,     // (file, buffer, length) -> bytes
    CALL_CLOSE,     // (file)
    CALL_MAP,       // (length, flags) -> address of zeroed pages
    CALL_UNMAP,     // (address, length)
    CALL_REPORT,    // (const struct report *)
    CALL_DISK,      // (DISK_READ or DISK_WRITE, sector, buffer of SECTOR_SIZE)
};

enum { MAP_PRIVATE = 0, MAP_SHARED = 1 }; // shared pages stay shared across fork

enum { CONSOLE_FILE = 1, TERMINAL_FILE = 2 };

enum { DISK_READ, DISK_WRITE, SECTOR_SIZE = 512 };

enum { PROGRAM_NAME = 16, PROGRAMS = 16 };

// What a program tells about itself: the digest of what it computed, and what that took.
struct report {
    uint64_t place;
    char name[PROGRAM_NAME];
    uint64_t digest;
    uint64_t cycles;
    uint64_t instructions;
};

// The start of the image of the user programs; addresses are the programs' own.
struct user_image {
    uint64_t entry;
    uint64_t data_start;
    uint64_t data_end;
    uint64_t end;
};
