// tiny's kernel: what its parts offer each other.
//
// The kernel runs with interrupts disabled; it takes them when a user program runs and when nobody
// can run. So nothing in it is interrupted, and a trap out of it is a mistake.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../abi.h"
#include "../csr.h"

enum { PAGE_SIZE = 4096 };

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memset(void *to, int value, size_t length);

// -- frame.c: pages of memory, counted ----------------------------------------------------------

void frames_initialize(void);
// A page of zeros that has one owner.
void *frame_allocate(void);
// One owner more, one owner less; pages of the user image have no count and stay.
void frame_share(void *frame);
void frame_release(void *frame);
bool frame_is_shared(const void *frame);

// -- space.c: address spaces --------------------------------------------------------------------

enum { AREAS = 8 };
enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };
enum { AREA_WRITE = 1, AREA_FETCH = 2, AREA_SHARED = 4 };

// Addresses a program may use. The pages come when they are touched: from the image, or zeroed.
struct area {
    uint64_t start, end;
    const char *image;
    int flags;
};

struct space {
    uint64_t *root;
    uint64_t asid;
    struct area areas[AREAS];
};

// Turn paging on, with the kernel's own mapping.
void space_start_paging(void);
void space_create(struct space *space, uint64_t asid);
void space_destroy(struct space *space);
void space_activate(const struct space *space);
bool space_add(struct space *space, struct area area);
// Take the area that begins at that address away, with its pages.
bool space_remove(struct space *space, uint64_t start, uint64_t length);
// An unused range of addresses for a new area, or 0.
uint64_t space_find(const struct space *space, uint64_t length);
// What fork does: both get copies of all that is private, but a page is copied only when one of
// them writes it.
void space_fork(struct space *child, struct space *parent);
// The program touched a page that is not mapped, or not so; false when it must not.
bool space_fault(struct space *space, uint64_t address, enum access access);
bool space_copy_in(struct space *space, void *to, uint64_t from, size_t length);
bool space_copy_out(struct space *space, uint64_t to, const void *from, size_t length);

// -- process.c: processes and the scheduler -----------------------------------------------------

enum { PROCESSES = 12, FILES = 8 };

// Registers of a user program; start.S knows the order.
struct registers {
    uint64_t pc, ra, sp, gp, tp, t0, t1, t2, s0, s1, a[8], s2_to_s11[10], t3_to_t6[4];
};

// What switch_context keeps.
struct context {
    uint64_t ra, sp, s[12];
};

enum file_kind { FILE_CLOSED, FILE_CONSOLE, FILE_TERMINAL, FILE_PIPE_OUT, FILE_PIPE_IN };

struct file {
    enum file_kind kind;
    struct pipe *pipe;
};

enum process_state { PROCESS_UNUSED, PROCESS_READY, PROCESS_WAITING, PROCESS_ENDED };

struct process {
    enum process_state state;
    uint64_t identity;
    struct process *parent;
    uint64_t exit_code;
    const void *waits_for;
    uint64_t wakes_at; // when it waits for time
    char *stack;
    struct registers *registers;
    struct context context;
    struct space space;
    struct file files[FILES];
};

extern struct process *current;

__attribute__((noreturn)) void process_start_first(void);
int64_t process_fork(void);
__attribute__((noreturn)) void process_exit(uint64_t code);
int64_t process_wait(void);
// Let others run; comes back when it is the process's turn again.
void process_yield(void);
// Wait until somebody calls process_wake with the same address.
void process_wait_for(const void *what);
void process_wake(const void *what);
void process_sleep(uint64_t ticks);

// -- timer.c: preemption and sleep --------------------------------------------------------------

void timer_initialize(void);
uint64_t timer_now(void);
void timer_interrupt(void);
// Stop for something that is to happen no later than at ``deadline``.
void timer_arm(uint64_t deadline);
// Begin a time slice of the process that runs now.
void timer_start_slice(void);
// The process that runs has used its time slice up.
bool timer_slice_over(void);

// -- pipe.c -------------------------------------------------------------------------------------

struct pipe *pipe_create(void);
void pipe_open(struct pipe *pipe, enum file_kind end);
void pipe_close(struct pipe *pipe, enum file_kind end);
int64_t pipe_read(struct pipe *pipe, uint64_t to, uint64_t length);
int64_t pipe_write(struct pipe *pipe, uint64_t from, uint64_t length);

// -- console.c, interrupt.c ---------------------------------------------------------------------

void console_initialize(void);
int64_t console_write(uint64_t from, uint64_t length);
void console_interrupt(void);
// Print at once, without interrupts; what was written before comes first.
void console_print(const char *text);
void console_print_hex(uint64_t number);

void interrupts_initialize(void);
void interrupts_enable_source(uint32_t source);
// Serve every interrupt that is pending.
void interrupts_serve(void);

// -- virtio.c, disk.c, terminal.c: devices that may be there ------------------------------------

void virtio_interrupt(uint32_t source);
void disk_initialize(void);
int64_t disk_transfer(bool write, uint64_t sector, uint64_t address);
void terminal_initialize(void);
int64_t terminal_write(uint64_t from, uint64_t length);

// -- trap.c, system_call.c, main.c --------------------------------------------------------------

int64_t system_call(uint64_t number, const uint64_t arguments[3]);
__attribute__((noreturn)) void power_off(uint64_t exit_code);
__attribute__((noreturn)) void panic(const char *why);
