// The checks of init: each returns when all is as it must be, and calls fail() otherwise.
#pragma once

// Say what is wrong and end this process with a status that is not 0.
_Noreturn void fail(const char *what, const char *place);

#define REQUIRE(condition) ((condition) ? (void)0 : fail(#condition, __func__))

// What a process does that check_exec() has started: its exit status.
enum { EXECUTED_STATUS = 42 };

void check_computing(void);
void check_files(void);
void check_pipes_and_processes(void);
void check_exec(void);
void check_demand_paging(void);
void check_copy_on_write(void);
void check_large_memory(void);
void check_signals(void);
void check_faults(void);
void check_illegal_instructions(void);
void check_new_code(void);
void check_threads(void);
void check_sleep(void);
void check_preemption(void);
