// Reading and writing CSRs from C, and device registers.
#pragma once

#include <stdint.h>

#define CSR_READ(name)                                           \
    ({                                                           \
        uint64_t value_;                                         \
        __asm__ volatile("csrr %0, " #name : "=r"(value_));      \
        value_;                                                  \
    })
#define CSR_WRITE(name, value) __asm__ volatile("csrw " #name ", %0" ::"r"((uint64_t)(value)) : "memory")
#define CSR_SET(name, bits) __asm__ volatile("csrs " #name ", %0" ::"r"((uint64_t)(bits)) : "memory")
#define CSR_CLEAR(name, bits) __asm__ volatile("csrc " #name ", %0" ::"r"((uint64_t)(bits)) : "memory")

#define REG8(address) (*(volatile uint8_t *)(uintptr_t)(address))
#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define REG64(address) (*(volatile uint64_t *)(uintptr_t)(address))

#define BIT(number) (1ull << (number))
