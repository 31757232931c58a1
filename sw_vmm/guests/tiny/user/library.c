// System calls as functions, and printing.

#include "user.h"

void exit(int code) {
    system_call(CALL_EXIT, (uint64_t)code, 0, 0);
    __builtin_unreachable();
}

int64_t fork(void) { return system_call(CALL_FORK, 0, 0, 0); }

int64_t wait(void) { return system_call(CALL_WAIT, 0, 0, 0); }

int64_t identity(void) { return system_call(CALL_IDENTITY, 0, 0, 0); }

void sleep(uint64_t ticks) { system_call(CALL_SLEEP, ticks, 0, 0); }

bool open_pipe(int files[2]) { return system_call(CALL_PIPE, (uintptr_t)files, 0, 0) == 0; }

int64_t read(int file, void *buffer, size_t length) {
    return system_call(CALL_READ, (uint64_t)file, (uintptr_t)buffer, length);
}

int64_t write(int file, const void *buffer, size_t length) {
    return system_call(CALL_WRITE, (uint64_t)file, (uintptr_t)buffer, length);
}

void close(int file) { system_call(CALL_CLOSE, (uint64_t)file, 0, 0); }

void *map(size_t length, int flags) {
    int64_t start = system_call(CALL_MAP, length, (uint64_t)flags, 0);
    return start < 0 ? NULL : (void *)start;
}

int64_t transfer(int direction, uint64_t sector, void *buffer) {
    return system_call(CALL_DISK, (uint64_t)direction, sector, (uintptr_t)buffer);
}

int64_t unmap(void *start, size_t length) {
    return system_call(CALL_UNMAP, (uintptr_t)start, length, 0);
}

int wait_for_code(void) {
    int64_t ended = wait();
    return ended < 0 ? -1 : (int)(ended & 0xff);
}

void print(const char *text) {
    size_t length = 0;
    while (text[length])
        length++;
    write(CONSOLE_FILE, text, length);
}

void print_hex(uint64_t number) {
    char digits[16];
    for (int place = 0; place < 16; place++)
        digits[place] = "0123456789abcdef"[number >> (60 - 4 * place) & 15];
    write(CONSOLE_FILE, digits, sizeof digits);
}
