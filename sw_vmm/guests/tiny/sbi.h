// The calls of the Supervisor Binary Interface that tiny's firmware answers and its kernel makes.
#pragma once

enum {
    SBI_BASE = 0x10,
    SBI_TIME = 0x54494D45,
    SBI_SRST = 0x53525354,
};
enum { SBI_BASE_VERSION, SBI_BASE_IMPLEMENTATION, SBI_BASE_IMPLEMENTATION_VERSION, SBI_BASE_PROBE };
enum { SBI_TIME_SET = 0 };
enum { SBI_SRST_RESET = 0 };
enum { SBI_SUCCESS = 0, SBI_NOT_SUPPORTED = -2 };
