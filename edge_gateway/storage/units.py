"""What the spool's thread is asked to do, and the units of one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_gateway.model import Record, Refusal, SubDevice
from edge_gateway.storage.interface import Boot


@dataclass(slots=True)
class Append:
    records: Sequence[Record]
    size_bytes: int
    done: Callable[[Refusal | None], None]


@dataclass(slots=True)
class Forget:
    numbers: Sequence[int]


@dataclass(slots=True)
class Remember:
    devices: Sequence[SubDevice]


@dataclass(slots=True)
class RememberBoot:
    boot: Boot


@dataclass(slots=True)
class Read:
    after: int
    limit_records: int
    limit_bytes: int
    done: Callable[[list[Record]], None]


Unit = Append | Forget | Remember | RememberBoot | Read


@dataclass(slots=True)
class Batch:
    """Units of one transaction. Within it only this matters: a number is forgotten after it was appended."""

    appends: list[Append] = field(default_factory=list)
    forgets: list[int] = field(default_factory=list)
    devices: dict[str, SubDevice] = field(default_factory=dict)
    boots: dict[int, Boot] = field(default_factory=dict)

    def is_empty(self) -> bool:
        return not (self.appends or self.forgets or self.devices or self.boots)

    def add(self, unit: Append | Forget | Remember | RememberBoot) -> None:
        if isinstance(unit, Append):
            self.appends.append(unit)
        elif isinstance(unit, Forget):
            self.forgets.extend(unit.numbers)
        elif isinstance(unit, Remember):
            self.devices.update((device.name, device) for device in unit.devices)
        else:
            self.boots[unit.boot.number] = unit.boot

    def without_appends(self) -> Batch:
        return Batch(forgets=self.forgets, devices=self.devices, boots=self.boots)

    def after(self, carried: Batch) -> Batch:
        """This one, with what an earlier one left undone."""
        if carried.is_empty():
            return self
        return Batch(
            self.appends, carried.forgets + self.forgets, carried.devices | self.devices, carried.boots | self.boots
        )

    def singly(self) -> list[Batch]:
        """Each unit in a batch of its own, in an order that keeps the promises."""
        return [
            *(Batch(devices={name: device}) for name, device in self.devices.items()),
            *(Batch(boots={number: boot}) for number, boot in self.boots.items()),
            *(Batch(appends=[append]) for append in self.appends),
            Batch(forgets=self.forgets),
        ]
