// Processes: their life, and whose turn it is.

#include "kernel.h"

#define STACK_START 0x7FFF0000ull
#define STACK_END 0x7FFF8000ull
#define NEVER (~0ull)

extern const char user_image[], user_image_end[];

void return_to_user(void);
void switch_context(struct context *from, const struct context *to);

static struct process processes[PROCESSES];
static uint64_t last_identity;
struct process *current;

#define FOR_EACH_PROCESS(name) \
    for (struct process *name = processes; name < processes + PROCESSES; name++)

// A process whose address space is its own and empty; NULL when there are too many.
static struct process *create(void) {
    FOR_EACH_PROCESS(process) {
        if (process->state != PROCESS_UNUSED)
            continue;
        *process = (struct process){.state = PROCESS_WAITING, .identity = ++last_identity};
        process->wakes_at = NEVER;
        process->stack = frame_allocate();
        process->registers = (struct registers *)(process->stack + PAGE_SIZE) - 1;
        process->context = (struct context){
            .ra = (uintptr_t)return_to_user,
            .sp = (uintptr_t)process->registers,
        };
        space_create(&process->space, 1 + (uint64_t)(process - processes));
        return process;
    }
    return NULL;
}

void process_start_first(void) {
    struct process *first = create();
    const struct user_image *image = (const struct user_image *)user_image;
    space_add(&first->space, (struct area){USER_BASE, image->data_start, user_image, AREA_FETCH});
    space_add(&first->space, (struct area){image->data_start, image->data_end,
                                           user_image + (image->data_start - USER_BASE), AREA_WRITE});
    space_add(&first->space, (struct area){image->data_end, image->end, NULL, AREA_WRITE});
    space_add(&first->space, (struct area){STACK_START, STACK_END, NULL, AREA_WRITE});
    first->registers->pc = image->entry;
    first->registers->sp = STACK_END;
    first->files[CONSOLE_FILE].kind = FILE_CONSOLE;
    first->files[TERMINAL_FILE].kind = FILE_TERMINAL;
    first->state = PROCESS_READY;
    current = first;
    space_activate(&first->space);
    timer_start_slice();
    struct context boot;
    switch_context(&boot, &first->context);
    __builtin_unreachable();
}

int64_t process_fork(void) {
    struct process *child = create();
    if (!child)
        return -1;
    child->parent = current;
    space_fork(&child->space, &current->space);
    for (int number = 0; number < FILES; number++) {
        child->files[number] = current->files[number];
        if (child->files[number].pipe)
            pipe_open(child->files[number].pipe, child->files[number].kind);
    }
    *child->registers = *current->registers;
    child->registers->a[0] = 0;
    child->state = PROCESS_READY;
    return (int64_t)child->identity;
}

void process_exit(uint64_t code) {
    if (!current->parent)
        power_off(code);
    for (struct file *file = current->files; file < current->files + FILES; file++)
        if (file->pipe)
            pipe_close(file->pipe, file->kind);
    FOR_EACH_PROCESS(child)
        if (child->parent == current)
            child->parent = processes; // the first process waits for everybody
    current->exit_code = code;
    current->state = PROCESS_ENDED;
    process_wake(current->parent);
    process_yield();
    __builtin_unreachable();
}

int64_t process_wait(void) {
    for (;;) {
        bool any = false;
        FOR_EACH_PROCESS(child) {
            if (child->state == PROCESS_UNUSED || child->parent != current)
                continue;
            any = true;
            if (child->state != PROCESS_ENDED)
                continue;
            space_destroy(&child->space);
            frame_release(child->stack);
            child->state = PROCESS_UNUSED;
            return (int64_t)(child->identity << 8 | child->exit_code);
        }
        if (!any)
            return -1;
        process_wait_for(current);
    }
}

// -- the scheduler -------------------------------------------------------------------------------

// Whose turn it is after the current process, in the order of the table; NULL: nobody can run.
static struct process *next(void) {
    struct process *process = current;
    do {
        if (++process == processes + PROCESSES)
            process = processes;
        if (process->state == PROCESS_READY)
            return process;
    } while (process != current);
    return NULL;
}

static void wake_sleepers(void) {
    uint64_t now = timer_now();
    FOR_EACH_PROCESS(process)
        if (process->state == PROCESS_WAITING && process->wakes_at <= now) {
            process->wakes_at = NEVER;
            process->state = PROCESS_READY;
        }
}

static uint64_t next_to_wake(void) {
    uint64_t deadline = NEVER;
    FOR_EACH_PROCESS(process)
        if (process->state == PROCESS_WAITING && process->wakes_at < deadline)
            deadline = process->wakes_at;
    return deadline;
}

// Nobody can run: sleep until an interrupt makes somebody ready. wfi ends when an interrupt is
// pending although the kernel has them disabled, so none can come between the look and the sleep.
static void idle(void) {
    timer_arm(next_to_wake());
    __asm__ volatile("wfi");
    interrupts_serve();
}

void process_yield(void) {
    struct process *from = current, *to;
    wake_sleepers();
    while (!(to = next())) {
        idle();
        wake_sleepers();
    }
    timer_start_slice();
    if (to == from)
        return;
    current = to;
    space_activate(&to->space);
    switch_context(&from->context, &to->context);
}

void process_wait_for(const void *what) {
    current->waits_for = what;
    current->state = PROCESS_WAITING;
    process_yield();
}

void process_wake(const void *what) {
    FOR_EACH_PROCESS(process)
        if (process->state == PROCESS_WAITING && process->waits_for == what) {
            process->waits_for = NULL;
            process->state = PROCESS_READY;
        }
}

void process_sleep(uint64_t ticks) {
    current->wakes_at = timer_now() + ticks;
    process_wait_for(NULL);
}
