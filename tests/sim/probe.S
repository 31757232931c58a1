// Small pieces of code for test_library.py; each is entered by the host at its label.
    .option norvc
    .section .text.start
    .globl _start
_start:
spin:
    addi x1, x1, 1
    j spin

// Stores x10, x10 + 1, ... to 64 words from x11, so that the data cache holds them dirty.
dirty:
    li x12, 64
1:  sd x10, 0(x11)
    addi x10, x10, 1
    addi x11, x11, 8
    addi x12, x12, -1
    bnez x12, 1b
    ebreak

// Loads x10 from x11.
load:
    ld x10, 0(x11)
    ebreak

// Ends by HTIF with exit code 7.
end_by_tohost:
    li x5, 7 << 1 | 1
    la x6, tohost
    sd x5, 0(x6)
1:  j 1b

// Ends by the test finisher: fail with code 9.
end_by_finisher:
    li x5, 0x3333 | 9 << 16
    li x6, FINISHER_BASE
    sw x5, 0(x6)
1:  j 1b

// Sends the bytes from x11 up to a zero byte; then echoes what it receives until a newline.
talk:
    li x6, UART_BASE
1:  lbu x5, 0(x11)
    beqz x5, 3f
2:  lbu x7, 5(x6)
    andi x7, x7, 0x20
    beqz x7, 2b
    sb x5, 0(x6)
    addi x11, x11, 1
    j 1b
3:  lbu x7, 5(x6)
    andi x7, x7, 1
    beqz x7, 3b
    lbu x5, 0(x6)
4:  lbu x7, 5(x6)
    andi x7, x7, 0x20
    beqz x7, 4b
    sb x5, 0(x6)
    li x7, 10
    bne x5, x7, 3b
5:  lbu x7, 5(x6)
    andi x7, x7, 0x40
    beqz x7, 5b
    ebreak

// Reads the word at x11, then writes x10 there.
device:
    lw x12, 0(x11)
    sw x10, 4(x11)
    ebreak

// Traps x12 times from U-mode; x1 counts.
calls:
    addi x1, x1, 1
    ecall
    addi x12, x12, -1
    bnez x12, calls
    ebreak

    .section .tohost, "aw", @progbits
    .globl tohost
    .align 6
tohost:
    .dword 0
    .dword 0
