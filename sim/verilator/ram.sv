`ifndef VMXLAB_CLOCK
`define VMXLAB_CLOCK posedge
`endif
// RAM on AXI4: INCR bursts of 64-bit beats, the first beat LATENCY cycles after its request and
// then one per cycle; reads and writes go side by side. The bytes live in C++ (ram.cpp).

module vmxlab_ram #(
    parameter int unsigned LATENCY = 12,
    parameter logic [31:0] BASE = 32'h8000_0000
) (
    input  logic        clk,
    input  logic        rst,
    input  logic        ar_valid,
    output logic        ar_ready,
    input  logic        ar_id,
    input  logic [31:0] ar_address,
    input  logic [7:0]  ar_len,
    output logic        r_valid,
    input  logic        r_ready,
    output logic        r_id,
    output logic [63:0] r_data,
    output logic [1:0]  r_resp,
    output logic        r_last,
    input  logic        aw_valid,
    output logic        aw_ready,
    input  logic        aw_id,
    input  logic [31:0] aw_address,
    input  logic        w_valid,
    output logic        w_ready,
    input  logic [63:0] w_data,
    input  logic [7:0]  w_strb,
    input  logic        w_last,
    output logic        b_valid,
    input  logic        b_ready,
    output logic        b_id,
    output logic [1:0]  b_resp
);
    localparam logic [1:0] OKAY = 2'd0, DECERR = 2'd3;

    // Both answer 1 when the offset lies within the fitted RAM.
    import "DPI-C" function bit vmxlab_ram_read(input int unsigned offset, output longint unsigned data);
    import "DPI-C" function bit vmxlab_ram_write(
        input int unsigned offset, input longint unsigned data, input byte unsigned strobe);

    // Reads.
    logic        reading = 0;
    logic [31:0] delay = 0;
    logic [31:0] read_offset = 0;
    logic [7:0]  beats_left = 0;

    assign ar_ready = !reading;

    // A beat is fetched at the clock edge before the cycle in which it is shown.
    task automatic fetch(input logic [31:0] offset, input logic last);
        longint unsigned data;
        bit fitted;
        fitted = vmxlab_ram_read(offset & ~32'd7, data);
        r_valid <= 1;
        r_data <= data;
        r_resp <= fitted ? OKAY : DECERR;
        r_last <= last;
    endtask

    initial begin
        r_valid = 0;
        r_id = 0;
        r_data = 0;
        r_resp = OKAY;
        r_last = 0;
    end

    always_ff @(`VMXLAB_CLOCK clk) begin
        if (rst) begin
            reading <= 0;
            r_valid <= 0;
        end else if (!reading) begin
            if (ar_valid) begin
                reading <= 1;
                r_id <= ar_id;
                read_offset <= ar_address - BASE;
                beats_left <= ar_len;
                delay <= LATENCY - 1;
                if (LATENCY == 1) fetch(ar_address - BASE, ar_len == 0);
            end
        end else if (!r_valid) begin
            delay <= delay - 1;
            if (delay == 1) fetch(read_offset, beats_left == 0);
        end else if (r_ready) begin
            if (r_last) begin
                reading <= 0;
                r_valid <= 0;
            end else begin
                fetch(read_offset + 8, beats_left == 1);
                read_offset <= read_offset + 8;
                beats_left <= beats_left - 1;
            end
        end
    end

    // Writes: the answer follows the last beat.
    logic        writing = 0;
    logic [31:0] write_offset = 0;

    assign aw_ready = !writing && !b_valid;
    assign w_ready = writing;

    initial begin
        b_valid = 0;
        b_id = 0;
        b_resp = OKAY;
    end

    always_ff @(`VMXLAB_CLOCK clk) begin
        if (rst) begin
            writing <= 0;
            b_valid <= 0;
        end else begin
            if (aw_valid && aw_ready) begin
                writing <= 1;
                b_id <= aw_id;
                b_resp <= OKAY;
                write_offset <= aw_address - BASE;
            end
            if (w_valid && w_ready) begin
                if (!vmxlab_ram_write(write_offset & ~32'd7, w_data, w_strb)) b_resp <= DECERR;
                write_offset <= write_offset + 8;
                if (w_last) begin
                    writing <= 0;
                    b_valid <= 1;
                end
            end
            if (b_valid && b_ready) b_valid <= 0;
        end
    end
endmodule
