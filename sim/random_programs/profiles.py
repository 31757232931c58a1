"""What programs are made of: weights of the kinds of items, by profile."""

from dataclasses import dataclass, field

__all__ = ["PROFILES", "Profile"]

_BASE = {
    "compute": 12, "compressed": 8, "multiply": 4, "memory": 10, "atomic": 3, "reserve": 2,
    "branch": 5, "loop": 2, "call": 2, "indirect": 2, "csr": 3, "fence": 2, "satp": 1,
    "privilege": 1, "trap": 2, "raw": 0.5, "modify_code": 1, "modify_table": 1, "interrupt": 1,
    "wait": 0.3, "device": 0.5, "corner": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """Weights of items (of ``_BASE`` where not named), and where blocks run.

    Members
    -------
    paged : float
        Share of the blocks that run below M with translation on.
    machine : float
        Share of the blocks that run in M-mode.
    timer : int
        Ticks between timer interrupts, about.
    host_writes : bool
        A bus master writes memory while the program runs.
    items : int
        Items per block, about.
    """

    weights: dict[str, float] = field(default_factory=dict)
    paged: float = 0.5
    machine: float = 0.3
    timer: int = 60
    host_writes: bool = False
    items: int = 32

    def weight(self, kind: str) -> float:
        return self.weights.get(kind, _BASE[kind])

    @property
    def kinds(self) -> list[str]:
        return list(_BASE)


# fmt: off
PROFILES = {
    "mixed": Profile(),
    "integer": Profile({"compute": 30, "compressed": 20, "multiply": 20, "corner": 12, "csr": 1},
                       paged=0.2, machine=0.5),
    "control": Profile({"branch": 25, "loop": 6, "call": 8, "indirect": 8, "modify_code": 6},
                       paged=0.4),
    "memory": Profile({"memory": 40, "atomic": 8, "reserve": 6, "device": 2}, paged=0.6),
    "paging": Profile({"memory": 20, "satp": 6, "modify_table": 12, "fence": 6, "privilege": 3},
                      paged=0.85, machine=0.1),
    "privileged": Profile({"csr": 25, "privilege": 8, "trap": 6, "satp": 4, "fence": 4},
                          machine=0.45),
    "interrupts": Profile({"interrupt": 12, "wait": 3, "privilege": 4, "csr": 5, "reserve": 4},
                          timer=12),
    "self-modifying": Profile({"modify_code": 20, "loop": 6, "call": 5, "branch": 8, "fence": 4}),
    "bus-master": Profile({"memory": 20, "reserve": 12, "modify_table": 4, "modify_code": 4},
                          paged=0.6, host_writes=True),
}
# fmt: on
