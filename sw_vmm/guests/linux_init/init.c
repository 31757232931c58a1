// init: the first process of the Linux smoke test. It says where it runs, checks what a hart can get
// wrong under an operating system, and switches the machine off. Nothing it prints depends on time.

#include "checks.h"
#include "system.h"

#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/mount.h>
#include <linux/reboot.h>
#include <linux/utsname.h>

static const struct {
    const char *name;
    void (*run)(void);
} checks[] = {
    {"computing", check_computing},
    {"files", check_files},
    {"pipes and processes", check_pipes_and_processes},
    {"exec", check_exec},
    {"demand paging", check_demand_paging},
    {"copy on write", check_copy_on_write},
    {"large memory", check_large_memory},
    {"signals", check_signals},
    {"faults", check_faults},
    {"illegal instructions", check_illegal_instructions},
    {"new code", check_new_code},
    {"threads", check_threads},
    {"sleep", check_sleep},
    {"preemption", check_preemption},
};
enum { CHECKS = sizeof(checks) / sizeof(checks[0]) };

static void end_machine(unsigned command) {
    CALL(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command, 0);
}

_Noreturn void fail(const char *what, const char *place) {
    struct line line = {0};
    add_text(&line, "init: FAILED: ");
    add_text(&line, place);
    add_text(&line, ": ");
    add_text(&line, what);
    write_line(&line);
    for (;;)
        CALL(exit_group, 1);
}

static void say_kernel(void) {
    struct new_utsname name;
    struct line line = {0};
    REQUIRE(!CALL(uname, &name));
    add_text(&line, "init: ");
    add_text(&line, name.sysname);
    add_text(&line, " ");
    add_text(&line, name.release);
    add_text(&line, " ");
    add_text(&line, name.machine);
    write_line(&line);
}

// The line of /proc/cpuinfo that begins with ``key``, without its white space.
static void say_cpu(const char *cpuinfo, const char *key) {
    struct line line = {0};
    const char *at = find_text(cpuinfo, key);
    REQUIRE(at);
    add_text(&line, "init: ");
    add_text(&line, key);
    add_text(&line, " ");
    at = find_text(at, ":");
    REQUIRE(at);
    for (at++; *at == ' ' || *at == '\t'; at++) {
    }
    size_t length = 0;
    while (at[length] && at[length] != '\n')
        length++;
    add_part(&line, at, length);
    write_line(&line);
}

static void check_cpuinfo(void) {
    static char text[2048];
    REQUIRE(!CALL(mount, "proc", "/proc", "proc", 0, 0));
    long file = CALL(openat, AT_FDCWD, "/proc/cpuinfo", O_RDONLY);
    REQUIRE(file >= 0);
    long length = CALL(read, file, text, sizeof(text) - 1);
    REQUIRE(length > 0);
    CALL(close, file);
    say_cpu(text, "isa");
    say_cpu(text, "mmu");
    REQUIRE(find_text(text, "rv64ima") && find_text(text, "sv39"));
    // One hart, and no second one.
    const char *first = find_text(text, "hart\t");
    REQUIRE(first && !find_text(first + 1, "processor"));
}

static void run_checks(void) {
    struct line line = {0};
    for (int i = 0; i < CHECKS; i++) {
        checks[i].run();
        add_text(&line, "init: ");
        add_text(&line, checks[i].name);
        add_text(&line, ": passed");
        write_line(&line);
    }
}

void init(int count, char **arguments) {
    struct line line = {0};
    int status = -1;
    if (count > 1 && !memcmp(arguments[1], "again", sizeof("again")))
        CALL(exit_group, EXECUTED_STATUS);
    // The first process must not end, and the kernel reports every signal it gets.
    long child = CALL(clone, SIGCHLD, 0);
    if (!child) {
        say_kernel();
        check_cpuinfo();
        run_checks();
        CALL(exit_group, 0);
    }
    if (child < 0 || CALL(wait4, child, &status, 0, 0) != child || status) {
        add_text(&line, "init: FAILED: the checks have ended with status ");
        add_number(&line, (unsigned)status);
        write_line(&line);
        end_machine(LINUX_REBOOT_CMD_RESTART);
    }
    add_text(&line, "init: all ");
    add_number(&line, CHECKS);
    add_text(&line, " checks passed");
    write_line(&line);
    end_machine(LINUX_REBOOT_CMD_POWER_OFF);
    // Whoever is still here has no machine that can be switched off: the kernel panics.
    CALL(exit_group, 1);
}
