// What init needs of a C library: system calls, threads, lines of text, memory functions.
#pragma once

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

long system_call(long number, long a0, long a1, long a2, long a3, long a4, long a5);

#define CALL_6(number, a, b, c, d, e, f, ...) \
    system_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
// A system call with up to six arguments; the result is the kernel's: -errno on failure.
#define CALL(name, ...) CALL_6(__NR_##name, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

// Another thread of this process runs ``function`` on the stack below ``stack_top``. ``id`` holds its
// id until it has ended; then it is zero, and who waits for that (futex) wakes.
long start_thread(void (*function)(void), void *stack_top, uint32_t *id);

// A line is written in one piece, so that the kernel's messages do not get into it.
struct line {
    char text[512];
    size_t length;
};

void add_text(struct line *line, const char *text);
void add_part(struct line *line, const char *text, size_t length);
void add_number(struct line *line, uint64_t number);
void write_line(struct line *line);

size_t length_of(const char *text);
// The first place of ``part`` in ``text``, or NULL.
const char *find_text(const char *text, const char *part);

void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int byte, size_t count);
int memcmp(const void *first, const void *second, size_t count);
