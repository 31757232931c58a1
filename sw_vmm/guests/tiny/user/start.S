# The user programs: what the kernel must know about the image, and the first instruction.

    .section .text.start, "ax"
    .globl _start
_start:
    .dword  first_instruction
    .dword  user_data_start
    .dword  user_data_end
    .dword  user_end
first_instruction:
    call    main
    call    exit
