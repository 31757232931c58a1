// Processes that work together: through pipes, and through memory they share.

#include "user.h"

enum { ROUNDS = 200, PLAYERS = 3, TURNS = 9, NAPS = 12, NAP = 700 };

// A number goes to the child and comes back, one larger.
uint64_t play_ping_pong(void) {
    uint64_t digest = DIGEST_START;
    int there[2], back[2];
    if (!open_pipe(there) || !open_pipe(back))
        return 0;
    int64_t child = fork();
    if (child < 0)
        return 0;
    if (child == 0) {
        uint64_t ball;
        // Or the end would never come: the child would wait for itself.
        close(there[1]);
        while (read(there[0], &ball, sizeof ball) == sizeof ball) {
            ball++;
            write(back[1], &ball, sizeof ball);
        }
        exit(7);
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t ball = round * round;
        if (write(there[1], &ball, sizeof ball) < 0 || read(back[0], &ball, sizeof ball) < 0)
            return 0;
        digest = add_to_digest(digest, ball);
    }
    close(there[1]);
    return wait_for_code() == 7 ? digest : 0;
}

// Players wait for their turn without ever calling the kernel: only preemption lets others play.
uint64_t take_turns(void) {
    volatile uint64_t *turn = map(PAGE_SIZE, MAP_SHARED);
    if (!turn)
        return 0;
    for (uint64_t player = 0; player < PLAYERS; player++)
        if (fork() == 0) {
            for (uint64_t seen; (seen = *turn) < TURNS;)
                if (seen % PLAYERS == player) {
                    turn[1] = add_to_digest(turn[1], player + seen);
                    *turn = seen + 1;
                }
            exit(0);
        }
    for (int player = 0; player < PLAYERS; player++)
        if (wait_for_code() != 0)
            return 0;
    return *turn == TURNS ? add_to_digest(DIGEST_START, turn[1]) : 0;
}

static uint64_t now(void) {
    uint64_t ticks;
    __asm__ volatile("rdtime %0" : "=r"(ticks)::"memory");
    return ticks;
}

// Nobody else wants to run, so the kernel waits in wfi.
uint64_t sleep_often(void) {
    uint64_t digest = DIGEST_START;
    for (uint64_t nap = 0; nap < NAPS; nap++) {
        uint64_t start = now();
        sleep(NAP);
        if (now() - start < NAP)
            return 0;
        digest = add_to_digest(digest, nap);
    }
    return digest;
}
