"""The CSR file as the Privileged Architecture describes it, in Python; masks come from the facts."""

from rtl.arch.csrs import CSR_BY_NUMBER, CSRS, MSTATUS, MSTATUS_CONSTANT, SSTATUS_FIELDS
from tests.rtl.core.interrupt_rule import LEVEL, wanted

__all__ = ["ALL", "CsrModel"]

ALL = (1 << 64) - 1
BY_LEVEL = {level: privilege for privilege, level in LEVEL.items()}
#: The event counters there are, and the event of cycles that are the host's.
COUNTERS, HOST_EVENT = range(3, 11), 16
NUMBER = {name: csr.number for name, csr in CSRS.items()}
SSIP, MSIP, STIP, MTIP, SEIP, MEIP = (1 << n for n in (1, 3, 5, 7, 9, 11))
STCE = 1 << 63
#: CSRs that hold what is written to their writable bits.
HOLD = [
    "stvec", "scounteren", "senvcfg", "sscratch", "sepc", "scause", "stval", "stimecmp",
    "medeleg", "mideleg", "mie", "mtvec", "mcounteren", "menvcfg", "mcountinhibit",
    "mscratch", "mepc", "mcause", "mtval", *(f"mhpmevent{n}" for n in COUNTERS),
    *(f"mhpmcounter{n}" for n in COUNTERS),
]  # fmt: skip


class CsrModel:
    """One hart's CSRs; ``tick`` is a clock cycle."""

    def __init__(self):
        self.level = 3
        self.held = {name: CSRS[name].reset for name in HOLD}
        self.mstatus = CSRS["mstatus"].reset
        self.satp = self.mcycle = self.minstret = 0
        self.software = 0  # SSIP, STIP and SEIP as software set them
        self.lines = {"msi": 0, "mti": 0, "sei": 0, "mei": 0}
        self.time = 0
        # What the event counters count at the end of the next cycle, and which of them.
        self.seen, self.amount = 0, 1
        self.counts = dict.fromkeys(COUNTERS, False)

    def status(self, name):
        return MSTATUS[name].extract(self.mstatus)

    def set_status(self, **fields):
        for name, value in fields.items():
            self.mstatus = MSTATUS[name].insert(self.mstatus, value)

    # What can be read.

    @property
    def mip(self):
        value = self.software & (SSIP | SEIP)
        value |= MSIP * self.lines["msi"] | MTIP * self.lines["mti"]
        value |= MEIP * self.lines["mei"] | SEIP * self.lines["sei"]
        if self.held["menvcfg"] & STCE:
            return value | STIP * (self.time >= self.held["stimecmp"])
        return value | self.software & STIP

    def read(self, number):
        name = CSR_BY_NUMBER[number].name
        views = {
            "mstatus": self.mstatus,
            "sstatus": self.mstatus & MSTATUS.mask(*SSTATUS_FIELDS),
            "mip": self.mip,
            "sip": self.mip & self.held["mideleg"],
            "sie": self.held["mie"] & self.held["mideleg"],
            "satp": self.satp,
            "misa": CSRS["misa"].reset,
            "mcycle": self.mcycle,
            "cycle": self.mcycle,
            "minstret": self.minstret,
            "instret": self.minstret,
            "time": self.time,
        }
        if name.startswith("hpmcounter"):
            name = f"m{name}"
        return views[name] if name in views else self.held.get(name, 0)

    def refuses(self, number, writes, *, host=False):
        """The access is an illegal instruction."""
        if number not in CSR_BY_NUMBER or (writes and number >> 10 == 0b11):
            return True
        if host or self.level == 3:
            return False
        if (number >> 8 & 3) > self.level:
            return True
        if 0xC00 <= number < 0xC20:
            counter = 1 << number - 0xC00
            if not self.held["mcounteren"] & counter:
                return True
            return self.level == 0 and not self.held["scounteren"] & counter
        if number == NUMBER["satp"]:
            return bool(self.status("tvm"))
        if number == NUMBER["stimecmp"]:
            # Sstc: both menvcfg.STCE and mcounteren.TM let S-mode in.
            return not (self.held["menvcfg"] & STCE and self.held["mcounteren"] & 2)
        return False

    # What changes it.

    def modified(self, number, operation, operand):
        """What a write stores: csrrs and csrrc do not feed the line of SEIP back into its bit."""
        old = self.read(number)
        if number == NUMBER["mip"]:
            old = old & ~SEIP | self.software & SEIP
        return {"WRITE": operand, "SET": old | operand, "CLEAR": old & ~operand}[operation]

    def write(self, number, new):
        csr = CSR_BY_NUMBER[number]
        mideleg = self.held["mideleg"]
        if csr.name in ("mstatus", "sstatus"):
            value = self.mstatus & ~csr.writable | new & csr.writable
            if MSTATUS["mpp"].extract(value) == 2:
                value = MSTATUS["mpp"].insert(value, self.status("mpp"))
            self.mstatus = value
            assert self.mstatus & MSTATUS_CONSTANT == MSTATUS_CONSTANT
        elif csr.name == "satp":
            if new >> 60 in (0, 8):
                self.satp = new
        elif csr.name == "mip":
            writable = SSIP | SEIP if self.held["menvcfg"] & STCE else SSIP | SEIP | STIP
            self.software = self.software & ~writable | new & writable
        elif csr.name == "sip":
            writable = SSIP & mideleg
            self.software = self.software & ~writable | new & writable
        elif csr.name == "sie":
            self.held["mie"] = self.held["mie"] & ~mideleg | new & mideleg
        elif csr.name in ("mcycle", "minstret"):
            setattr(self, csr.name, new)
        elif csr.name in self.held:
            self.held[csr.name] = new & csr.writable

    def tick(self, *, advance=0, retired=0, written=None, skip=0, events=0):
        """A cycle ends; ``written`` is the CSR written at its end, which does not count then."""
        inhibit = self.held["mcountinhibit"]
        if not inhibit & 1 and written != NUMBER["mcycle"]:
            self.mcycle = self.mcycle + (skip or advance) & ALL
        if not inhibit & 4 and written != NUMBER["minstret"]:
            self.minstret = self.minstret + retired & ALL
        for n in COUNTERS:
            counter, selector = f"mhpmcounter{n}", f"mhpmevent{n}"
            if self.counts[n] and self.seen >> self.held[selector] & 1:
                self.held[counter] = self.held[counter] + self.amount & ALL
            touched = written in (NUMBER[counter], NUMBER[selector])
            self.counts[n] = not (inhibit >> n & 1 or touched)
        self.seen, self.amount = (1 << HOST_EVENT, skip) if skip else (events, 1)

    def trap_target(self, interrupt, code):
        """(to M-mode, vector)"""
        delegation = self.held["mideleg" if interrupt else "medeleg"]
        to_machine = self.level == 3 or not delegation >> code & 1
        vector = self.held["mtvec" if to_machine else "stvec"]
        offset = 4 * code if interrupt and vector & 1 else 0
        return to_machine, (vector & ~3) + offset & ALL

    def trap(self, interrupt, code, value, pc):
        to_machine, _ = self.trap_target(interrupt, code)
        x = "m" if to_machine else "s"
        self.held |= {
            f"{x}epc": pc,
            f"{x}cause": interrupt << 63 | code,
            f"{x}tval": value,
        }
        self.set_status(**{f"{x}pie": self.status(f"{x}ie"), f"{x}ie": 0, f"{x}pp": self.level})
        self.level = 3 if to_machine else 1

    def ret(self, supervisor):
        x = "s" if supervisor else "m"
        level = self.status(f"{x}pp")
        self.set_status(**{f"{x}ie": self.status(f"{x}pie"), f"{x}pie": 1, f"{x}pp": 0})
        if level != 3:
            self.set_status(mprv=0)
        self.level = level

    # What follows from it.

    def context(self, *, data):
        level = self.status("mpp") if data and self.status("mprv") else self.level
        return {
            "privilege": BY_LEVEL[level],
            "paged": int(level != 3 and self.satp >> 60 == 8),
            "asid": self.satp >> 44 & 0xFFFF,
            "root": self.satp & (1 << 44) - 1,
            "sum": self.status("sum"),
            "mxr": self.status("mxr"),
        }

    def interrupt(self):
        return wanted(
            self.mip,
            self.held["mie"],
            self.held["mideleg"],
            BY_LEVEL[self.level],
            self.status("mie"),
            self.status("sie"),
        )
