// What every user program may use: system calls, printing, digests.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../abi.h"

enum { PAGE_SIZE = 4096 };

static inline int64_t system_call(uint64_t number, uint64_t first, uint64_t second, uint64_t third) {
    register uint64_t a0 __asm__("a0") = first;
    register uint64_t a1 __asm__("a1") = second;
    register uint64_t a2 __asm__("a2") = third;
    register uint64_t a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return (int64_t)a0;
}

__attribute__((noreturn)) void exit(int code);
int64_t fork(void);
int64_t wait(void);
int64_t identity(void);
void sleep(uint64_t ticks);
bool open_pipe(int files[2]);
int64_t read(int file, void *buffer, size_t length);
int64_t write(int file, const void *buffer, size_t length);
void close(int file);
void *map(size_t length, int flags);
int64_t transfer(int direction, uint64_t sector, void *buffer);
int64_t unmap(void *start, size_t length);

// The exit code of the next child that ends.
int wait_for_code(void);
void print(const char *text);
void print_hex(uint64_t number);

// FNV-1a over words: each program's digest begins with DIGEST_START.
#define DIGEST_START 0xcbf29ce484222325u
static inline uint64_t add_to_digest(uint64_t digest, uint64_t word) {
    return (digest ^ word) * 0x100000001b3u;
}

// The programs. Each gives its digest; 0 means that something went wrong, NO_DEVICE that there is
// nothing to work with.
enum { NO_DEVICE = 1 };
uint64_t compute(void);
uint64_t storm_calls(void);
uint64_t storm_forks(void);
uint64_t play_ping_pong(void);
uint64_t storm_faults(void);
uint64_t storm_maps(void);
uint64_t take_turns(void);
uint64_t sleep_often(void);
uint64_t print_much(void);
uint64_t use_disk(void);
uint64_t use_terminal(void);
