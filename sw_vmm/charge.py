"""What the VMM's own work costs: cycles of the same hart, by an explicit model.

Each constant is the measured cost of the operation as code on the hart (``sw_vmm.calibrate``) and
holds for the configuration it was measured on only. The file has them for several configurations.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sw_vmm.errors import ChargesError

__all__ = ["CHARGES_FILE", "ChargeModel", "Charges", "load_charges", "save_charges"]

#: Where ``make calibrate`` leaves the constants.
CHARGES_FILE = Path(__file__).with_name("charges.json")

_FORMAT = 2
#: What only a hart with VMX has.
_OF_VMX = {"vmcs", "vmptrld"}


@dataclass(frozen=True, slots=True)
class Charges:
    """Cycles per operation of a VMM that runs on the hart itself.

    Members
    -------
    exit : int
        Find out why the guest stopped and branch to the handler, and return from the trap.
    csr : int
        One CSR read or write.
    gpr : int
        One general-purpose register saved or restored.
    guest_word : int
        One word of guest memory read or written.
    device : int
        One access to an emulated device register.
    instruction : int
        One instruction interpreted.
    vmcs : int or None
        One VMREAD or VMWRITE; None where the hart has no VMX.
    vmptrld : int or None
        Making another VMCS current; None likewise.
    """

    exit: int
    csr: int
    gpr: int
    guest_word: int
    device: int
    instruction: int
    vmcs: int | None = None
    vmptrld: int | None = None


class ChargeModel:
    """Prices of VMM work, in whole cycles.

    Parameters
    ----------
    charges : Charges or None
        None prices everything at zero (an infinitely fast VMM).
    factor : float
        Multiplies every price.

    Raises ChargesError when the factor is negative, or not zero without constants.
    """

    def __init__(self, charges: Charges | None, factor: float = 1.0):
        if not 0 <= factor < float("inf"):
            raise ChargesError(f"the charge factor must not be negative, and {factor} was given")
        if charges is None and factor:
            raise ChargesError("there are no charge constants: run 'make calibrate', or --charge 0")
        self.factor = factor
        self._charges = charges

    def price(self, **operations: int) -> int:
        """Cycles for so many of each operation, named as the members of ``Charges``.

        Raises ChargesError for an operation that the hart does not have.
        """
        if self._charges is None:
            return 0
        prices = {name: getattr(self._charges, name) for name in operations}
        missing = sorted(name for name, price in prices.items() if price is None)
        if missing:
            raise ChargesError(f"there is no charge constant for {', '.join(missing)} on this hart")
        return round(self.factor * sum(operations[name] * prices[name] for name in operations))


def _normal(configuration: dict) -> dict:
    return json.loads(json.dumps(configuration, sort_keys=True))


def save_charges(measured: Iterable[tuple[dict, Charges]], path: Path = CHARGES_FILE) -> None:
    """Write constants, each with the configuration they were measured on."""
    rows = [
        {
            "configuration": configuration,
            "cycles": {name: n for name, n in asdict(charges).items() if n is not None},
        }
        for configuration, charges in measured
    ]
    content = {"format": _FORMAT, "measurements": rows}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)


def load_charges(configuration: dict, path: Path = CHARGES_FILE) -> Charges:
    """Read the constants for ``configuration``.

    Raises ChargesError when there are none, when the file is damaged, or when they were measured
    on another configuration.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise ChargesError(
            f"there are no charge constants in {path.name}: run 'make calibrate', or --charge 0"
        ) from None
    except (OSError, ValueError) as error:
        raise ChargesError(f"{path.name} cannot be read: {error}") from None
    rows = content.get("measurements") if isinstance(content, dict) else None
    if (
        not isinstance(rows, list)
        or not rows
        or content.get("format") != _FORMAT
        or not all(map(_is_measurement, rows))
    ):
        raise ChargesError(f"{path.name} is damaged: run 'make calibrate' again")
    wanted = _normal(configuration)
    differing = {
        index: _differences(row["configuration"], wanted) for index, row in enumerate(rows)
    }
    nearest = min(differing, key=lambda index: len(differing[index]))
    if differing[nearest]:
        raise ChargesError(
            "the charge constants were measured on another configuration "
            f"({', '.join(differing[nearest])}): measure them on this one, or --charge 0"
        )
    return Charges(**rows[nearest]["cycles"])


def _is_measurement(row: object) -> bool:
    names = {member.name for member in fields(Charges)}
    return (
        isinstance(row, dict)
        and isinstance(row.get("configuration"), dict)
        and isinstance(row.get("cycles"), dict)
        and set(row["cycles"]) in (names, names - _OF_VMX)
        and all(isinstance(value, int) and value >= 0 for value in row["cycles"].values())
    )


def _differences(one: dict, other: dict) -> list[str]:
    """The members that are not the same."""
    return sorted(
        name
        for name in {*one, *other}
        if (name in one, one.get(name)) != (name in other, other.get(name))
    )
