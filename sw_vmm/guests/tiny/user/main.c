// The first process: runs one program after the other, each in a child, and says how it ended.

#include "user.h"

static const struct {
    char name[PROGRAM_NAME];
    uint64_t (*run)(void);
} programs[] = {
    {"compute", compute},       {"calls", storm_calls},  {"forks", storm_forks},
    {"ping-pong", play_ping_pong}, {"faults", storm_faults}, {"maps", storm_maps},
    {"turns", take_turns},      {"sleep", sleep_often},  {"output", print_much},
    {"disk", use_disk},         {"terminal", use_terminal},
};

static uint64_t cycles(void) {
    uint64_t value;
    __asm__ volatile("rdcycle %0" : "=r"(value)::"memory");
    return value;
}

static uint64_t instructions(void) {
    uint64_t value;
    __asm__ volatile("rdinstret %0" : "=r"(value)::"memory");
    return value;
}

static int run_program(uint64_t place) {
    struct report report = {.place = place};
    for (int letter = 0; letter < PROGRAM_NAME; letter++)
        report.name[letter] = programs[place].name[letter];
    uint64_t first_instruction = instructions(), first_cycle = cycles();
    report.digest = programs[place].run();
    report.cycles = cycles() - first_cycle;
    report.instructions = instructions() - first_instruction;
    if (report.digest == NO_DEVICE) {
        print(report.name);
        print(": no device\n");
        return 0;
    }
    if (system_call(CALL_REPORT, (uintptr_t)&report, 0, 0) < 0)
        return 1;
    print(programs[place].name);
    print(": ");
    print_hex(report.digest);
    print("\n");
    return report.digest == 0;
}

int main(void) {
    int failed = 0;
    for (uint64_t place = 0; place < sizeof programs / sizeof programs[0]; place++) {
        if (fork() == 0)
            exit(run_program(place));
        int code = wait_for_code();
        if (code) {
            print(programs[place].name);
            print(" FAILED\n");
            failed++;
        }
    }
    print(failed ? "tiny: something failed\n" : "tiny: all is well\n");
    return failed;
}
