// Checks of computing, files, processes, and signals.

#include "checks.h"
#include "system.h"

#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/fs.h>
#include <linux/wait.h>

enum { PRIME_LIMIT = 20000, PRIMES = 2262, PIECE = 4096, PIECES = 16 };

static uint32_t crc_32(const uint8_t *data, size_t length) {
    uint32_t crc = ~0u;
    while (length--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (-(crc & 1) & 0xedb88320u);
    }
    return ~crc;
}

void check_computing(void) {
    static uint8_t composite[PRIME_LIMIT];
    int primes = 0;
    for (int number = 2; number < PRIME_LIMIT; number++) {
        if (composite[number])
            continue;
        primes++;
        for (int multiple = 2 * number; multiple < PRIME_LIMIT; multiple += number)
            composite[multiple] = 1;
    }
    REQUIRE(primes == PRIMES);
    // The check value of this CRC in every catalogue.
    REQUIRE(crc_32((const uint8_t *)"123456789", 9) == 0xcbf43926u);
    // Fermat: a to the power of p - 1 is 1 modulo the prime p.
    const uint64_t prime = 4294967291u;
    uint64_t power = 1, base = 1234567;
    for (uint64_t exponent = prime - 1; exponent; exponent >>= 1) {
        if (exponent & 1)
            power = power * base % prime;
        base = base * base % prime;
    }
    REQUIRE(power == 1);
}

void check_files(void) {
    static uint64_t written[PIECE / 8], found[PIECE / 8];
    const char *path = "/pieces", *other = "/renamed";
    long file = CALL(openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    REQUIRE(file >= 0);
    uint64_t number = 1;
    for (int piece = 0; piece < PIECES; piece++) {
        for (int i = 0; i < PIECE / 8; i++)
            written[i] = number = number * 6364136223846793005u + 1442695040888963407u;
        REQUIRE(CALL(write, file, written, PIECE) == PIECE);
    }
    REQUIRE(CALL(lseek, file, 0, SEEK_END) == PIECE * PIECES);
    REQUIRE(!CALL(renameat2, AT_FDCWD, path, AT_FDCWD, other, 0));
    REQUIRE(CALL(openat, AT_FDCWD, path, O_RDONLY) < 0);
    long again = CALL(openat, AT_FDCWD, other, O_RDONLY);
    REQUIRE(again >= 0);
    number = 1;
    for (int piece = 0; piece < PIECES; piece++) {
        REQUIRE(CALL(read, again, found, PIECE) == PIECE);
        for (int i = 0; i < PIECE / 8; i++) {
            number = number * 6364136223846793005u + 1442695040888963407u;
            REQUIRE(found[i] == number);
        }
    }
    REQUIRE(!CALL(read, again, found, PIECE));
    REQUIRE(!CALL(close, file) && !CALL(close, again));
    REQUIRE(!CALL(unlinkat, AT_FDCWD, other, 0));
}

static int status_of(long child) {
    int status = -1;
    REQUIRE(CALL(wait4, child, &status, 0, 0) == child);
    // The child has ended by exit, and this is its exit code.
    REQUIRE(!(status & 0xff));
    return status >> 8;
}

static void read_all(long file, void *data, size_t length) {
    for (size_t done = 0; done < length;) {
        long count = CALL(read, file, (char *)data + done, length - done);
        REQUIRE(count > 0);
        done += count;
    }
}

void check_pipes_and_processes(void) {
    enum { QUESTIONS = 100, NUMBERS = 10000, BLOCK = 50, STATUS = 7 };
    int there[2], back[2];
    REQUIRE(!CALL(pipe2, there, 0) && !CALL(pipe2, back, 0));
    long parent = CALL(getpid);
    long child = CALL(clone, SIGCHLD, 0);
    REQUIRE(child >= 0);
    if (!child) {
        REQUIRE(CALL(getppid) == parent);
        uint64_t sum = 0, number, block[BLOCK];
        CALL(close, there[1]);
        for (int i = 0; i < QUESTIONS; i++) {
            read_all(there[0], &number, sizeof(number));
            sum += number * number;
            // One answer for each question: both processes sleep and wake by turns.
            REQUIRE(CALL(write, back[1], &sum, sizeof(sum)) == sizeof(sum));
        }
        // More than a pipe holds: the writer has to wait for the reader.
        for (int i = 0; i < NUMBERS / BLOCK; i++) {
            read_all(there[0], block, sizeof(block));
            for (int j = 0; j < BLOCK; j++)
                sum += block[j];
        }
        REQUIRE(CALL(write, back[1], &sum, sizeof(sum)) == sizeof(sum));
        CALL(exit_group, STATUS);
    }
    uint64_t sum = 0, answer;
    for (uint64_t number = 0; number < QUESTIONS; number++) {
        REQUIRE(CALL(write, there[1], &number, sizeof(number)) == sizeof(number));
        read_all(back[0], &answer, sizeof(answer));
        sum += number * number;
        REQUIRE(answer == sum);
    }
    static uint64_t numbers[NUMBERS];
    for (uint64_t number = 0; number < NUMBERS; number++)
        sum += numbers[number] = number << 20 ^ number;
    REQUIRE(CALL(write, there[1], numbers, sizeof(numbers)) == sizeof(numbers));
    read_all(back[0], &answer, sizeof(answer));
    REQUIRE(answer == sum);
    REQUIRE(status_of(child) == STATUS);
    for (int i = 0; i < 2; i++)
        REQUIRE(!CALL(close, there[i]) && !CALL(close, back[i]));
}

void check_exec(void) {
    static const char *const arguments[] = {"/init", "again", NULL}, *const environment[] = {NULL};
    for (int i = 0; i < 3; i++) {
        long child = CALL(clone, SIGCHLD, 0);
        REQUIRE(child >= 0);
        if (!child) {
            CALL(execve, "/init", arguments, environment);
            fail("exec returned", __func__);
        }
        REQUIRE(status_of(child) == EXECUTED_STATUS);
    }
}

static volatile int signals;

static void count_signal(int number) {
    signals += number;
}

void check_signals(void) {
    struct sigaction action = {.sa_handler = count_signal};
    REQUIRE(!CALL(rt_sigaction, SIGUSR1, &action, 0, sizeof(sigset_t)));
    REQUIRE(!CALL(rt_sigaction, SIGUSR2, &action, 0, sizeof(sigset_t)));
    long parent = CALL(getpid);
    for (int i = 1; i <= 20; i++) {
        REQUIRE(!CALL(kill, parent, SIGUSR1));
        REQUIRE(signals == i * SIGUSR1);
    }
    // What is blocked waits until it no longer is.
    sigset_t set = {{1ul << (SIGUSR2 - 1)}}, none = {{0}};
    REQUIRE(!CALL(rt_sigprocmask, SIG_BLOCK, &set, 0, sizeof(set)));
    signals = 0;
    long child = CALL(clone, SIGCHLD, 0);
    REQUIRE(child >= 0);
    if (!child) {
        CALL(kill, parent, SIGUSR2);
        CALL(exit_group, 0);
    }
    REQUIRE(status_of(child) == 0);
    REQUIRE(!signals);
    REQUIRE(!CALL(rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none)));
    REQUIRE(signals == SIGUSR2);
}
